package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// The cloud-init file is YAML whose scripts and configuration are whole once
// the brackets are filled in.
func TestCloudInit(t *testing.T) {
	text := read(t, "cloud-init.yml")
	if !strings.HasPrefix(text, "#cloud-config\n") {
		t.Error("cloud-init asks for #cloud-config in the first line")
	}
	text = regexp.MustCompile(`<[A-Z][A-Z0-9 ,/-]*>`).ReplaceAllString(text, "filled-in")
	var file struct {
		Files []struct{ Path, Permissions, Content string } `yaml:"write_files"`
		Run   [][]string                                    `yaml:"runcmd"`
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	written := map[string]string{}
	for _, f := range file.Files {
		path := filepath.Join(dir, filepath.Base(f.Path))
		written[f.Path] = path
		if err := os.WriteFile(path, []byte(f.Content), 0o600); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(f.Path, "/etc/doproxy/") && f.Permissions != "0600" {
			t.Errorf("%s has mode %s", f.Path, f.Permissions)
		}
	}
	for _, command := range file.Run {
		script := written[command[0]]
		if out, err := exec.Command("sh", "-n", script).CombinedOutput(); script == "" || err != nil {
			t.Errorf("%s: %v: %s", command[0], err, out)
		}
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(read(t, written["/etc/doproxy/doproxy.yml"])), &config); err != nil || config["limits"] == nil {
		t.Errorf("%v, %v", config, err)
	}
}

// An agent restarts within node_ttl, and for ever.
func TestUnits(t *testing.T) {
	for file, lines := range map[string][]string{
		"doproxy.service":       {"Restart=always", "RestartSec=200ms", "StartLimitIntervalSec=0", "Type=exec"},
		"haproxy-override.conf": {"Restart=always", "RestartSec=100ms", "StartLimitIntervalSec=0"},
	} {
		for _, line := range lines {
			if !strings.Contains(read(t, file), "\n"+line+"\n") {
				t.Errorf("%s lacks %s", file, line)
			}
		}
	}
}
