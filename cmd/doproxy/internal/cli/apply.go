package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	doproxyv1 "github.com/doproxy/doproxy/proto/doproxy/v1"
)

// mostFile is more than any configuration has.
const mostFile = 4 << 20

func (c *client) applyCommand() *cobra.Command {
	var file string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "apply -f FILE", GroupID: groupPools,
		Short: "Create or change pools and settings from a file",
		Long: `Create the pools that a YAML file defines, or change them to what it says, and the
cluster's settings (limits:, ingress:). All is checked before the first is changed.
What the file does not name stays.`,
		Example: "  doproxy apply -f doproxy.yml --dry-run\n  doproxy apply -f - < pools.yml",
		Args:    cobra.NoArgs, ValidArgsFunction: cobra.NoFileCompletions,
	}
	fileFlag(cmd, &file)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show the difference, what would come of it and its cost, and change nothing")
	cmd.RunE = c.run(func(s *session, _ []string) error {
		if file == "" {
			return usage("apply needs -f FILE, - for standard input")
		}
		doc, err := s.readDocument("apply", file)
		if err != nil {
			return err
		}
		return s.apply(doc, dryRun)
	})
	return cmd
}

func fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "the file, - for standard input")
	_ = cmd.MarkFlagFilename("file", "yml", "yaml", "json")
}

func (s *session) readDocument(op, file string) (*Document, error) {
	name, in := file, s.in
	if file == "-" {
		name = "<stdin>"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return nil, &Failure{Op: op, Err: err, Exit: ExitUsage}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, mostFile+1))
	if err == nil && len(data) > mostFile {
		err = fmt.Errorf("%s is larger than %d MiB", name, mostFile>>20)
	}
	if err != nil {
		return nil, &Failure{Op: op, Err: err, Exit: ExitUsage}
	}
	doc, err := s.opts.Parse(name, data)
	if err == nil && len(doc.Pools) == 0 && doc.Settings == nil {
		err = fmt.Errorf("%s defines no pool and no settings: write pools:, limits: or ingress:", name)
	}
	if err != nil {
		return nil, &Failure{Op: op, Err: err, Exit: ExitUsage}
	}
	return doc, nil
}

func (s *session) apply(doc *Document, dryRun bool) error {
	w, err := s.wish("apply", doc)
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
	var done applied
	if dryRun || w.parts() > 1 {
		checked := show
		if !dryRun {
			checked = func(string) error { return nil }
		}
		if done, err = s.applyWish(w, true, checked); err != nil {
			return err
		}
	}
	if !dryRun {
		if done, err = s.applyWish(w, false, show); err != nil {
			return err
		}
	}
	if s.format == "json" {
		return writeJSON(s.out, done.json(dryRun))
	}
	return nil
}

// wish is what a document asks for.
type wish struct {
	pools    []*doproxyv1.Pool
	settings *doproxyv1.ApplySettingsRequest // nil: they stay
}

func (w wish) parts() int {
	if w.settings == nil {
		return len(w.pools)
	}
	return len(w.pools) + 1
}

// wish completes the settings of a document that has a part of them with what
// the cluster has of the other.
func (s *session) wish(op string, doc *Document) (wish, error) {
	w := wish{pools: doc.Pools}
	if doc.Settings == nil {
		return w, nil
	}
	w.settings = &doproxyv1.ApplySettingsRequest{Settings: proto.Clone(doc.Settings).(*doproxyv1.Settings)}
	if doc.Settings.GetLimits() != nil && doc.Settings.GetIngress() != nil {
		return w, nil
	}
	now, err := s.getSettings()
	if err != nil {
		return wish{}, s.fail(op+" settings", err)
	}
	if doc.Settings.GetLimits() == nil {
		w.settings.Settings.Limits = now.GetLimits()
	}
	if doc.Settings.GetIngress() == nil {
		w.settings.Settings.Ingress = now.GetIngress()
	}
	w.settings.Etag = now.GetEtag()
	return w, nil
}

func (s *session) getSettings() (*doproxyv1.Settings, error) {
	res, err := ask(s, reading, &doproxyv1.GetSettingsRequest{}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.GetSettingsRequest) (*doproxyv1.GetSettingsResponse, error) {
		return doproxyv1.NewClusterServiceClient(cc).GetSettings(ctx, req)
	})
	return res.GetSettings(), err
}

// applied is what an apply changed, or would.
type applied struct {
	settings *doproxyv1.ApplySettingsResponse // nil: not asked for
	pools    []*doproxyv1.ApplyPoolResponse
}

// changes tells whether anything differs.
func (a applied) changes() bool {
	for _, p := range a.pools {
		if p.GetCreated() || len(p.GetChanges()) > 0 {
			return true
		}
	}
	return len(a.settings.GetChanges()) > 0
}

func (a applied) json(dryRun bool) any {
	out := struct {
		DryRun   bool `json:"dry_run"`
		Applied  any  `json:"applied"`
		Settings any  `json:"settings"`
	}{DryRun: dryRun, Applied: protoList(a.pools)}
	if a.settings != nil {
		out.Settings = protoJSON(a.settings)
	}
	return out
}

// applyWish applies the settings and then each pool, or only checks them, and
// tells show of each.
func (s *session) applyWish(w wish, validate bool, show func(text string) error) (applied, error) {
	var done applied
	if w.settings != nil {
		req := proto.Clone(w.settings).(*doproxyv1.ApplySettingsRequest)
		req.ValidateOnly = validate
		e := changing
		e.repeat = validate || req.GetEtag() == "" // a second time it would be stale
		res, err := ask(s, e, req, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ApplySettingsRequest) (*doproxyv1.ApplySettingsResponse, error) {
			return doproxyv1.NewClusterServiceClient(cc).ApplySettings(ctx, req)
		})
		if err != nil {
			return done, s.fail("apply settings", err)
		}
		done.settings = res
		if err := show(settingsText(s.style, res, validate)); err != nil {
			return done, err
		}
	}
	for _, pool := range w.pools {
		res, err := ask(s, changing, &doproxyv1.ApplyPoolRequest{Pool: pool, ValidateOnly: validate}, func(ctx context.Context, cc grpc.ClientConnInterface, req *doproxyv1.ApplyPoolRequest) (*doproxyv1.ApplyPoolResponse, error) {
			return doproxyv1.NewPoolServiceClient(cc).ApplyPool(ctx, req)
		})
		if err != nil {
			return done, s.fail("apply pool "+poolID(pool.GetName()), err)
		}
		done.pools = append(done.pools, res)
		text := applyText(s.style, res, validate)
		if validate && (res.GetCreated() || len(res.GetChanges()) > 0) {
			text += forecastText(s.style, res.GetForecast())
		}
		if err := show(text); err != nil {
			return done, err
		}
	}
	if validate && len(done.settings.GetChanges()) > 0 && anyHeld(done.pools) {
		return done, show("What holds pools up is told by the settings of now, not by those of the file.\n")
	}
	return done, nil
}

// anyHeld tells whether the forecast of one says that it would be held up.
func anyHeld(pools []*doproxyv1.ApplyPoolResponse) bool {
	for _, p := range pools {
		if len(p.GetForecast().GetHolds()) > 0 {
			return true
		}
	}
	return false
}
