package ua

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
)

// passwordVariable is the environment variable that holds the password of who
// gives none otherwise.
const passwordVariable = "IMGATE_PASSWORD"

// maxPassword is in octets.
const maxPassword = 1024

// secrecy goes into the help of commands that take a password.
const secrecy = " The password is better kept in a file (--password-file) or in the environment variable " + passwordVariable +
	": what follows --password can be seen by everybody on this machine, in the list of processes."

// password is where a command finds its password.
type password struct{ argument, file string }

func (p *password) declare(flags *flag.FlagSet, whose string) {
	flags.StringVar(&p.argument, "password", "", "the `password` of "+whose+"; others on this machine can see it")
	flags.StringVar(&p.file, "password-file", "", "the `file` whose first line is the password of "+whose)
}

// read returns the password: of the command line, of the file, or of the
// environment.
func (p *password) read() (string, error) {
	switch {
	case p.argument != "" && p.file != "":
		return "", plugin.Usage("expected --password or --password-file, not both")
	case p.argument != "":
		return p.argument, nil
	case p.file != "":
		return readPassword(p.file)
	}
	return os.Getenv(passwordVariable), nil
}

func readPassword(name string) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxPassword+1))
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" || len(line) > maxPassword {
		return "", fmt.Errorf("%s: expected a password of 1 to %d octets in the first line", name, maxPassword)
	}
	return line, nil
}
