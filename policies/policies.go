// Package policies is the operator's room: the domain service policies that we
// ship, written in Rego, their tests, the JSON Schemas of what a policy reads
// and says, and the list of builtins that a policy may call. It must not know
// who evaluates them; it holds files and nothing else.
package policies

import "embed"

// Files holds *.rego (policies, and their tests in *_test.rego) and the files
// named below, at the paths that they have in this directory.
//
//go:embed *.rego schema/*.json builtins.txt
var Files embed.FS

// The files that are not policies.
const (
	Builtins       = "builtins.txt"                // what a policy may call: a name a line, # begins a comment
	QuestionSchema = "schema/question.schema.json" // the document input
	PlanSchema     = "schema/plan.schema.json"     // the document plan
)
