package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

func (c *client) backupCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "backup", GroupID: groupPools,
		Short: "Write pools and settings in the form that apply takes",
		Long: `Write pools and settings as YAML that restore and apply take, to standard output or
to a file that its owner alone can read: user data may hold secrets. The comment at
its head names cluster, uid and time. Droplets are not in it: DigitalOcean has
them, see rebuild.`,
		Example: "  doproxy backup -f doproxy-backup.yml\n  doproxy backup | age -R ops.pub > backup.age",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVarP(&file, "file", "f", "-", "the file, - for standard output")
	_ = cmd.MarkFlagFilename("file", "yml", "yaml")
	cmd.RunE = c.run(func(s *session, _ []string) error { return s.backup(file) })
	return cmd
}

func (s *session) backup(file string) error {
	st, err := s.getStatus(1)
	if err != nil {
		return s.fail("backup", err)
	}
	doc := Document{}
	if doc.Pools, err = s.listPools(); err != nil {
		return s.fail("backup", err)
	}
	if doc.Settings, err = s.getSettings(); err != nil {
		return s.fail("backup", err)
	}
	if doc.Settings == nil {
		doc.Settings = &doproxyv1.Settings{}
	}
	if st.GetStoreError() != "" {
		fmt.Fprintf(s.err, "doproxy: warning: the store is out of reach, this is what %s saw last: %s\n", dash(nodeID(clean(st.GetNode()))), clean(st.GetStoreError()))
	}
	body, err := s.opts.Format(doc)
	if err != nil {
		return &Failure{Op: "backup", Err: err}
	}
	now := s.opts.Now()
	data := append([]byte(backupHead(now, st)), body...)
	if file != "-" {
		if err := renameio.WriteFile(file, data, 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
			return &Failure{Op: "backup", Err: err, Mend: []string{"name another file with -f, or leave it out for standard output"}}
		}
	}
	switch {
	case s.format == "json":
		out := struct {
			Cluster  string            `json:"cluster"`
			UID      string            `json:"uid"`
			Time     string            `json:"time"`
			File     string            `json:"file"`
			Pools    []json.RawMessage `json:"pools"`
			Settings json.RawMessage   `json:"settings"`
		}{st.GetCluster(), st.GetUid(), now.UTC().Format(time.RFC3339), file, protoList(doc.Pools), protoJSON(doc.Settings)}
		return writeJSON(s.out, out)
	case file == "-":
		_, err = s.out.Write(data)
	default:
		_, err = fmt.Fprintf(s.out, "%s %s and the settings in %s.\n", s.style.green("Success:"), countedAs(len(doc.Pools), "pool", "pools"), clean(file))
	}
	return err
}

func backupHead(now time.Time, st *doproxyv1.GetStatusResponse) string {
	st = cleaned(st)
	return fmt.Sprintf(`# Backup of doproxy's pools and settings.
# cluster: %s
# uid: %s
# time: %s
# Bring it back with: doproxy restore -f FILE
# If the store was lost for good, first: doproxy rebuild --from-cloud --uid %s
`, dash(st.GetCluster()), dash(st.GetUid()), now.UTC().Format(time.RFC3339), dash(st.GetUid()))
}

func (c *client) restoreCommand() *cobra.Command {
	var file string
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "restore -f FILE", GroupID: groupPools,
		Short: "Bring pools and settings back from a backup",
		Long: `Show what a backup would change, ask, and change pools and settings to what it says,
how many droplets are wanted included. Pools that it does not name stay.`,
		Example: "  doproxy restore -f doproxy-backup.yml --dry-run\n  doproxy restore -f doproxy-backup.yml",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	fileFlag(cmd, &file)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the difference, what would come of it and its cost, and change nothing")
	cmd.RunE = c.run(func(s *session, _ []string) error {
		if file == "" {
			return usage("restore needs -f FILE, - for standard input")
		}
		if file == "-" && !yes && !dryRun {
			return usage("restore -f - cannot ask, because standard input is the file: look with --dry-run, then add --yes")
		}
		doc, err := s.readDocument("restore", file)
		if err != nil {
			return err
		}
		return s.restore(doc, file, yes, dryRun)
	})
	return cmd
}

func (s *session) restore(doc *Document, file string, yes, dryRun bool) error {
	w, err := s.wish("restore", doc)
	if err != nil {
		return err
	}
	show := func(text string) error {
		if s.format == "json" {
			return nil
		}
		_, err := io.WriteString(s.out, text)
		return err
	}
	done, err := s.applyWish(w, true, show)
	if err != nil {
		return err
	}
	if err := s.warnOfNone(doc); err != nil {
		return s.fail("restore", err)
	}
	switch {
	case dryRun:
	case !done.changes():
		err = show("Nothing to restore: all is as in " + clean(file) + ".\n")
	default:
		if !yes {
			err = s.agree("restore", "Restore "+parts(w)+"?", "look with --dry-run, then add --yes")
		}
		if err == nil {
			done, err = s.applyWish(w, false, show)
		}
	}
	if err != nil {
		return err
	}
	if s.format == "json" {
		return writeJSON(s.out, done.json(dryRun))
	}
	return nil
}

// parts names what a wish holds.
func parts(w wish) string {
	var list []string
	if n := len(w.pools); n > 0 {
		list = append(list, countedAs(n, "pool", "pools"))
	}
	if w.settings != nil {
		list = append(list, "the settings")
	}
	return listed(list)
}

// warnOfNone tells of pools that keep their droplets although the file wants
// none: an apply cannot tell none from not said.
func (s *session) warnOfNone(doc *Document) error {
	if !slices.ContainsFunc(doc.Pools, func(p *doproxyv1.Pool) bool { return p.GetDesired() == 0 }) {
		return nil
	}
	now, err := s.listPools()
	if err != nil {
		return err
	}
	for _, p := range doc.Pools {
		i := slices.IndexFunc(now, func(n *doproxyv1.Pool) bool { return n.GetName() == p.GetName() })
		if i >= 0 && p.GetDesired() == 0 && now[i].GetDesired() > 0 {
			name := poolID(clean(p.GetName()))
			fmt.Fprintf(s.err, "doproxy: warning: the file wants no droplet in %s, or does not say: it keeps wanting %d; for none: `doproxy scale %s=0`\n", name, now[i].GetDesired(), name)
		}
	}
	return nil
}
