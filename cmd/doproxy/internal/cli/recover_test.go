package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func TestRecovery(t *testing.T) {
	full := Recovery{Dir: "/var/lib/doproxy/raft", Cluster: "01JSTORE", ID: "lb1-9f3a01c2", Term: 7, Index: 4711, Others: []string{"10.132.0.3:7477", "10.132.0.4:7477"}}
	done, only := full, full
	done.Changed, only.Others = true, nil
	var words, objects strings.Builder
	for _, one := range []struct {
		name string
		r    Recovery
	}{{"shown", full}, {"recovered", done}, {"the only member", only}, {"without a log", Recovery{Dir: full.Dir, Cluster: full.Cluster, ID: full.ID}}} {
		for to, args := range map[*strings.Builder][]string{&words: nil, &objects: {"-o", "json"}} {
			to.WriteString("=== " + one.name + "\n")
			root := newRoot(Options{})
			root.AddCommand(&cobra.Command{Use: "recover", RunE: func(cmd *cobra.Command, _ []string) error { return ShowRecovery(cmd, one.r) }})
			root.SetArgs(append([]string{"recover"}, args...))
			root.SetOut(to)
			if exit := Execute(t.Context(), root); exit != ExitOK {
				t.Errorf("%s: exit %d", one.name, exit)
			}
		}
	}
	golden(t, "recover.txt", words.String())
	golden(t, "recover-json.txt", objects.String())
}
