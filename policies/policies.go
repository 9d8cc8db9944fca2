// Package policies is the operator's room: the domain service policies that we
// ship, written in Rego, their data and tests, the JSON Schemas of what a policy
// reads and says, and the list of builtins that a policy may call. It must not
// know who evaluates them; it holds files and nothing else.
package policies

import "embed"

// Files holds *.rego (policies, and their tests in *_test.rego), *.yaml (their
// data), and the files named below, at the paths that they have in this
// directory. All services live side by side: a directory may hold any of them.
//
//go:embed *.rego *.yaml schema/*.json builtins.txt
var Files embed.FS

// Default names the files of those policies that decide when the configuration
// names none: messages between subscribers, and nothing that needs an agreement
// with somebody else. The others are to be copied. Nobody may change it.
var Default = []string{"onnet.rego", "onnet_test.rego"}

// The files that are neither policies nor data.
const (
	Builtins       = "builtins.txt"                // what a policy may call: a name a line, # begins a comment
	QuestionSchema = "schema/question.schema.json" // the document input
	PlanSchema     = "schema/plan.schema.json"     // the document plan
)
