package app

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/imgate/imgate/plugins/standard"
)

// TestConfigurationsThatWeShow: what operators copy is taken as it is: the quick
// start of docs/smpp.md, and the package's example with all that is commented out.
func TestConfigurationsThatWeShow(t *testing.T) {
	policies := filepath.Join(t.TempDir(), "policies")
	if got := imgate(t.Context(), standard.Plugins, "policy", "init", policies); got.status != exitOK {
		t.Fatalf("%+v", got)
	}
	_, manual, _ := strings.Cut(readFile(t, "../../../docs/smpp.md"), "```yaml\n")
	quickStart, _, found := strings.Cut(manual, "```\n")
	if !found {
		t.Fatal("docs/smpp.md has no quick start")
	}
	packaged := readFile(t, "../../../packaging/imgate.yaml")
	if !strings.Contains(packaged, "  # esmes:") || !strings.Contains(packaged, "  # vendor:") {
		t.Fatal("the package's example says nothing of SMPP")
	}
	packaged = regexp.MustCompile(`(?m)^  # ((?:  )?[a-z_]+:)`).ReplaceAllString(packaged, "  $1")
	packaged = regexp.MustCompile(`(?m)^    tls: .*\n|, "tls://[^"]*"`).ReplaceAllString(packaged, "") // its files aren't here
	packaged = strings.Replace(packaged, "!file /etc/imgate/vendor.pw", "secret", 1)
	for name, text := range map[string]string{"quick start": quickStart, "package": packaged} {
		text = strings.NewReplacer("./policies", policies, "/etc/imgate/policies", policies).Replace(text)
		if got := imgate(t.Context(), standard.Plugins, "check", "--config", write(t, "imgate.yaml", text)); got.status != exitOK {
			t.Errorf("%s: %s%s", name, got.out, got.err)
		}
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
