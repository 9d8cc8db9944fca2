package app

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// shells are those that completion is for, with how each of them is told.
var shells = [...]struct {
	name string
	load string // what to type to have it in the running shell
	gen  func(root *cobra.Command, out io.Writer) error
}{
	{"bash", "source <(imgate completion bash)", func(root *cobra.Command, out io.Writer) error { return root.GenBashCompletionV2(out, true) }},
	{"zsh", "source <(imgate completion zsh)", (*cobra.Command).GenZshCompletion},
	{"fish", "imgate completion fish | source", func(root *cobra.Command, out io.Writer) error { return root.GenFishCompletion(out, true) }},
	{"powershell", "imgate completion powershell | Out-String | Invoke-Expression", (*cobra.Command).GenPowerShellCompletionWithDesc},
}

// completionCommand writes the scripts with which shells complete commands,
// flags and their values.
func completionCommand() *cobra.Command {
	var names []string
	var long strings.Builder
	long.WriteString("Writes a script that makes a shell complete what is typed behind imgate.\nTo have it in a shell that runs:\n\n")
	for _, shell := range shells {
		names = append(names, shell.name)
		fmt.Fprintf(&long, "  %-12s%s\n", shell.name, shell.load)
	}
	long.WriteString("\nPackages install the scripts where new shells find them.")
	return &cobra.Command{
		Use:       "completion SHELL",
		Short:     "write a script that completes commands in a shell: " + strings.Join(names, ", "),
		Long:      long.String(),
		ValidArgs: names,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("expected one of %s", strings.Join(names, ", "))
			}
			for _, name := range names {
				if args[0] == name {
					return nil
				}
			}
			return fmt.Errorf("unknown shell %q; %s", args[0], expectedOneOf(args[0], names))
		},
		RunE: work(func(cmd *cobra.Command, args []string) error {
			for _, shell := range shells {
				if shell.name == args[0] {
					return shell.gen(cmd.Root(), cmd.OutOrStdout())
				}
			}
			return nil // Args has refused it
		}),
	}
}

// completeValues lets shells complete the values of all flags below a command,
// after what the help calls them: `a|b` is one of these words, a file or DIR
// is in the file system, and of everything else nothing is known.
func completeValues(command *cobra.Command) error {
	var failed error
	command.LocalFlags().VisitAll(func(f *pflag.Flag) {
		name, _ := pflag.UnquoteUsage(f)
		if f.Name == "help" || isPath(name) {
			return // a shell offers files by itself
		}
		if _, known := command.GetFlagCompletionFunc(f.Name); known {
			return // the command knows better
		}
		if err := command.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(words(name), cobra.ShellCompDirectiveNoFileComp)); err != nil {
			failed = err
		}
	})
	if command.ValidArgsFunction == nil && command.ValidArgs == nil && !isPath(command.Use) {
		command.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, child := range command.Commands() {
		if err := completeValues(child); err != nil {
			return err
		}
	}
	return failed
}

// words takes apart "table|json".
func words(placeholder string) []string {
	if !strings.Contains(placeholder, "|") {
		return nil
	}
	return strings.Split(placeholder, "|")
}

func isPath(placeholder string) bool {
	upper := strings.ToUpper(placeholder)
	return strings.Contains(upper, "FILE") || strings.Contains(upper, "DIR")
}
