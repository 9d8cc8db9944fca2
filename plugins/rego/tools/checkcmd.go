package tools

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/decide"
	"github.com/imgate/imgate/plugins/rego/gate"
	"github.com/imgate/imgate/plugins/rego/source"
)

// checkDocument is what policy check prints as JSON.
type checkDocument struct {
	Passed   bool     `json:"passed"`
	Mistakes []string `json:"mistakes"`
	Warnings []string `json:"warnings"`
	Revision string   `json:"revision,omitempty"`
	Services []string `json:"services"`
	Rows     int      `json:"rows"`
	Tests    int      `json:"tests"`
	Coverage float64  `json:"coverage"` // percent
}

func setupCheck(flags *flag.FlagSet) plugin.Run {
	place := newPlace(flags)
	output := newOutput(flags, humanOutput, jsonOutput)
	return func(ctx context.Context, in plugin.Invocation) error {
		config, err := place.config(in, in.Args)
		if err != nil {
			return err
		}
		found, failure := examine(ctx, config)
		if output.Value == jsonOutput {
			if err := printJSON(in.Out, found); err != nil || failure == nil {
				return err
			}
			return mistakes(failure, config)
		}
		for _, warning := range found.Warnings {
			fmt.Fprintln(in.Err, "warning:", printable(warning))
		}
		if failure != nil {
			return refused(in, config, failure)
		}
		return found.write(in.Out, config)
	}
}

// examine does what a server does with policies before it takes them.
func examine(ctx context.Context, config source.Config) (checkDocument, error) {
	d := checkDocument{Mistakes: []string{}, Warnings: []string{}, Services: []string{}}
	s, err := source.Open(ctx, config)
	if err == nil {
		d.Revision, d.Rows = s.Revision, len(s.Rows)
		var tried gate.Verdict
		tried, err = gate.Beside(ctx, func(ctx context.Context) (gate.Verdict, error) {
			return gate.Compile(ctx, s, config, decide.Environment{})
		})
		d.Services = append(d.Services, tried.Report.Services...)
		d.Warnings = append(d.Warnings, tried.Report.Warnings...)
		d.Tests, d.Coverage = tried.Report.Tests, tried.Report.Coverage
	}
	if err != nil {
		for _, e := range plugin.Mistakes(err) {
			d.Mistakes = append(d.Mistakes, e.Error())
		}
	}
	d.Passed = err == nil
	return d, err
}

func (d checkDocument) write(out io.Writer, config source.Config) error {
	return sheet{
		{"policies", config.Named()},
		{"revision", d.Revision},
		{"services", strings.Join(d.Services, ", ")},
		{"rows", fmt.Sprint(d.Rows)},
		{"tests", fmt.Sprint(d.Tests)},
		{"coverage", percentage(d.Coverage)},
		{"warnings", fmt.Sprint(len(d.Warnings))},
	}.write(out)
}
