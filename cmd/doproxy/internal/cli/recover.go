package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Recovery is what `doproxy cluster recover` found of a member that does not run,
// and whether it changed that.
type Recovery struct {
	Dir     string `json:"directory"`
	Cluster string `json:"cluster"` // the store's id
	ID      string `json:"id"`      // the member's
	// Term and Index are of the last entry of its log. Without a log, Index is 0:
	// Others are not known then.
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
	// Others are the addresses of the members that it knows beside itself, as they
	// were before the recovery.
	Others []string `json:"others"`
	// Changed: the member goes on without the others.
	Changed bool `json:"changed"`
}

// JoinAnew is what to do with a node that has no log.
func (r Recovery) JoinAnew() string {
	return "have this one join anew: move " + r.Dir + " away, start its agent, then `doproxy cluster join`"
}

// CheckOutput says what is wrong with -o, for a command that asks no server. cmd
// is below a root that Add has set up.
func CheckOutput(cmd *cobra.Command) error {
	if f := flagsOf(cmd).output; f != "" {
		return checkFormat(f)
	}
	return nil
}

// ShowRecovery writes r as -o says. cmd is as for CheckOutput.
func ShowRecovery(cmd *cobra.Command, r Recovery) error {
	if flagsOf(cmd).output == "json" {
		r.Others = append([]string{}, r.Others...)
		return writeJSON(cmd.OutOrStdout(), r)
	}
	_, err := io.WriteString(cmd.OutOrStdout(), recoveryText(r))
	return err
}

func recoveryText(r Recovery) string {
	who := fmt.Sprintf("This node is member %s of store %s.", r.ID, r.Cluster)
	if r.Index == 0 {
		return who + " It has no log: there is nothing to recover from.\n" +
			"Recover a node that has one, and " + r.JoinAnew() + ".\n"
	}
	who += fmt.Sprintf(" Its last entry is of term %d, index %d.\n", r.Term, r.Index)
	if len(r.Others) == 0 {
		return who + "It is the only member already: there is nothing to recover.\n"
	}
	who += fmt.Sprintf("The other members: %s.\n", strings.Join(r.Others, ", "))
	if r.Changed {
		return who + "This node is the only member now. Start its agent; the others join anew: `doproxy cluster token` here, `doproxy cluster join` there.\n"
	}
	return who + "\nWARNING: recovering goes on without them. What only they had is lost, and if more than\n" +
		"half of them still run, there would be two stores. If they are lost for good, and no other\n" +
		"node has a later entry, run this again with --yes. Nothing was changed.\n"
}
