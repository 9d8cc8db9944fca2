package decide

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/imgate/imgate/engine/message"
	"github.com/imgate/imgate/engine/plugin"
	"github.com/imgate/imgate/plugins/rego/source"
)

// worst are policies that take as long as they can, or as much memory. Each
// loads, and makes plan.labels.x from the text of a message. %s is rules.
var worst = map[string]string{
	"nested loops": `z := "y" if count([1 | some a in letters; some b in letters; some c in letters; some d in letters; a == b; c == d]) == 1`,
	"nested loops in one line": `z := "y" if {
	data.list[i].v == data.list[j].w
	t != "z"
}`,
	"a loop over data": `z := "y" if data.list[_].v == t`,
	"a loop over what is not": `z := "y" if {
	data.list[_].missing.deeper
	t != "z"
}`,
	"loops within each other":   "z := \"y\" if {\n\tdata.list[i].v == data.list[j].v\n\tdata.list[j].v == data.list[i].w\n\tt != \"z\"\n}",
	"a long list of members":    `z := "y" if count([1 | some a in data.list; a in data.list2; t != "z"]) == 1`,
	"every":                     `z := "y" if every a in data.list { every b in data.list { a.v != concat(b.w, [t]) } }`,
	"arrays in arguments":       "z := \"y\" if f0(t)\n" + arguments(),
	"arrays of arrays":          "z := \"y\" if x9 == y9\n" + chain("letters", "[@ | some _ in letters]", "x") + chain("letters", "[@ | some _ in letters]", "y"),
	"all pairs as a set":        `z := sprintf("%d", [count({[a, b] | some a in letters; some b in letters; some _ in letters})])`,
	"all pairs as an object":    `z := sprintf("%d", [count({[a, b]: c | some i, a in letters; some b in letters; c := i})])`,
	"a product of arrays":       `z := sprintf("%v", [[a | some a in letters; some b in letters]])`,
	"replace makes much":        `z := replace(t, "", t)`,
	"replace again and again":   doubling(`replace(@, "a", "aaaaaaaaaa")`),
	"concat makes much":         `z := concat(t, letters)`,
	"concat again and again":    doubling(`concat("", [@, @, @, @])`),
	"sprintf with a width":      `z := sprintf("%0999999d%0999999d%0999999d%0999999d%0999999d", [count(t), 1, 1, 1, 1])`,
	"sprintf with a star":       `z := sprintf("%*d", [100000000, count(t)])`,
	"sprintf again and again":   doubling(`sprintf("%s%[1]s%[1]s%[1]s", [@])`),
	"sprintf shows an argument": `z := sprintf(replace(t, "a", "%[1]s"), [t])`,
	"templates":                 doubling("$\"{@}{@}{@}{@}\""),
	"arrays again and again":    "z := sprintf(\"%d\", [count(x30)])\n" + chain("[t, t]", "array.concat(@, @)", "x"),
	"squares of numbers":        "z := sprintf(\"%v\", [x30])\n" + chain("count(t) * 1234567891", "@ * @", "x"),
	"powers of ten":             "z := sprintf(\"%v\", [x30])\n" + chain("count(t) * 1e300", "@ * @", "x"),
	"halves of numbers":         "z := sprintf(\"%v\", [x30])\n" + chain("count(t) / 7", "@ / 7", "x"),
	"a number from JSON":        `z := sprintf("%d", [json.unmarshal(concat("", ["1e9", substring(big, 0, 8)])) + 1])`,
	"a number from JSON shown":  `z := sprintf("%d", [json.unmarshal(concat("", ["1e9", substring(big, 0, 8)]))])`,
	"a number from JSON cut":    `z := substring(t, json.unmarshal(concat("", ["1e9", substring(big, 0, 8)])), 5)`,
	"a number from text":        `z := sprintf("%d", [round(to_number(concat("", ["1e", substring(big, 9, 3)])))])`,
	"a number in another base":  `z := format_int(to_number(concat("", ["1e", substring(big, 9, 3)])), 2)`,
	"a number for a weekday":    `z := time.weekday(json.unmarshal(concat("", ["1e9", substring(big, 0, 8)])))`,
	"numbers compared":          `z := "y" if json.unmarshal(concat("", ["1e9", substring(big, 0, 8)])) > json.unmarshal(concat("", ["1e9", substring(big, 1, 8)]))`,
	"a sum of large numbers":    `z := sprintf("%d", [sum([m | some a in letters; m := 1e300 * count(a)])])`,
	"a sorted list":             `z := sort(array.concat(data.list, [t]))[0].v`,
	"a sum":                     `z := sprintf("%d", [sum([count(t) | some _ in data.list])])`,
	"all data as JSON":          `z := json.marshal([data.list, data.object, t])`,
	"all data as a text":        `z := sprintf("%v", [[data.list, t]])`,
	"all data in a template":    `z := $"{data.list}{t}"`,
	"all data as a key":         `z := "y" if count({data.list, data.list2, t}) == 3`,
	"all data compared": `z := "y" if {
	data.list == data.list2
	t == "x"
}`,
	"data in a list":            `z := "y" if {"v": t} in data.list`,
	"a union of data":           `z := "y" if object.union(data.object, {"a": t}).missing`,
	"unions":                    "z := sprintf(\"%d\", [count(x30)])\n" + chain("{t: 1}", `object.union(@, {concat("", [json.marshal(@), "x"]): @})`, "x"),
	"the keys of data":          `z := "y" if t in object.keys(data.object)`,
	"a subset":                  `z := "y" if object.subset([a | some a in letters; some _ in ["1", "2"]], [a | some a in letters])`,
	"prefixes":                  `z := "y" if strings.any_prefix_match([a | some a in letters], [concat("", [a, "b"]) | some a in letters])`,
	"a trim by many letters":    `z := trim(t, t)`,
	"a trim by strange letters": `z := trim(replace(t, "a", "ä"), concat("", [replace(t, "a", "ü"), "ä"]))`,
	"an index":                  `z := sprintf("%d", [indexof(replace(t, "a", "ä"), concat("", [replace(substring(t, 0, 8000), "a", "ä"), "b"]))])`,
	"all indexes":               `z := sprintf("%d", [count(indexof_n(t, "a"))])`,
	"a split into letters":      `z := sprintf("%d", [count(split(t, ""))])`,
	"many patterns":             `z := strings.replace_n({a: t | some a in letters}, t)`,
	"a wide expression":         `z := "y" if regex.match(concat("", ["(((a{0,30}){0,30}){0,30})", "b"]), t)`,
	"an expression that waits":  `z := "y" if regex.match("(a?){500}(a){500}b", t)`,
	"a slow expression":         `z := "y" if regex.match("(.*a){25}b$", t)`,
	"an expression of classes":  `z := "y" if regex.match("(\\pL|\\pN|\\pS){900}b", t)`,
	"an expression from a text": `z := "y" if regex.match(replace(t, "a", "(a?){100}"), t)`,
	"expressions":               `z := "y" if count([1 | some a in letters; some b in letters; regex.match(concat("", [a, "*", b, "{90}"]), t)]) == 1`,
	"a glob":                    `z := "y" if glob.match("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b", [], substring(t, 0, 1000))`,
	"a glob of choices":         `z := "y" if glob.match("{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}{a,aa,aaa}b", [], substring(t, 0, 1000))`,
	"a glob of both":            `z := "y" if glob.match("{*a,*aa,*aaa}*{*a,*aa,*aaa}*{*a,*aa,*aaa}*{*a,*aa,*aaa}*{*a,*aa,*aaa}*{*a,*aa,*aaa}*b", [], substring(t, 0, 1000))`,
	"JSON of the text":          `z := sprintf("%v", [json.unmarshal(concat("", ["[", replace(t, "a", "[1,1],"), "1]"]))])`,
	"deep JSON":                 `z := sprintf("%v", [json.unmarshal(concat("", [replace(t, "a", "["), replace(t, "a", "]")]))])`,
	"codings again and again":   doubling(`urlquery.encode(urlquery.encode(@))`),
	"base64 again and again":    doubling(`base64.encode(base64.encode(@))`),
	"digests":                   `z := crypto.sha256(concat("", [crypto.sha256(concat("", [t, a])) | some a in letters]))`,
	"rules":                     "z := \"y\" if f0(t)\n" + functions(),
}

// chain is 30 rules, each made of the one before, which is @ in the format. The
// first is made of the text.
func chain(first, format, name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s0 := %s\n", name, first)
	for i := range 30 {
		fmt.Fprintf(&b, "%s%d := %s\n", name, i+1, strings.ReplaceAll(format, "@", fmt.Sprint(name, i)))
	}
	return b.String()
}

func doubling(format string) string { return "z := x30\n" + chain("t", format, "x") }

// functions call each other twice.
func functions() string {
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "f%d(a) if {\n\tf%d([a, 1])\n\tf%d([a, 2])\n}\n", i, i+1, i+1)
	}
	return b.String() + "f40(a) if a\n"
}

// arguments grow from call to call.
func arguments() string {
	var b strings.Builder
	for i := range 40 {
		fmt.Fprintf(&b, "f%d(a) if f%d([a, a])\n", i, i+1)
	}
	return b.String() + "f40(a) if a\n"
}

const worstHeader = `package imgate.services.a

match := {"domains": ["*"]}

asks := ["text"]

t := input.message.text

letters := [a | some a in data.letters; t != "z"]

plan.labels.x := z

big := "9999999998308" if t != "z"

`

// worstData is about what a policy may have beside it.
func worstData(n int) map[string]any {
	var list, other []any
	object := map[string]any{}
	for i := range n {
		list = append(list, map[string]any{"v": fmt.Sprint("v", i), "w": fmt.Sprint("w", i)})
		other = append(other, map[string]any{"v": fmt.Sprint("v", i), "w": fmt.Sprint("w", i)})
		object[fmt.Sprint("key", i)] = i
	}
	other[n-1] = 1
	var letters []any
	for i := range 1_000 {
		letters = append(letters, fmt.Sprint("letter", i))
	}
	return map[string]any{"list": list, "list2": other, "object": object, "letters": letters}
}

func loadWorst(t testing.TB, rules string, n int) *Policy {
	t.Helper()
	if !strings.Contains(rules, "data.") {
		n = 1 // it takes time to load
	}
	s := source.Source{Policies: []source.File{{Path: "a.rego", Text: []byte(worstHeader + rules)}}, Data: worstData(n)}
	p, errs := Load(t.Context(), s, 20*time.Millisecond, Environment{})
	if len(errs) > 0 {
		t.Fatal(errors.Join(errs...))
	}
	return p
}

// worstEntries is how many entries the data has: six times as many as the report
// warns of.
const worstEntries = 30_000

// promised is how long the worst policy may take; CI asserts five times that.
const promised = 100 * time.Millisecond

func TestWorstPolicies(t *testing.T) {
	q := plugin.Question{Recipient: plugin.QuestionRecipient{Domain: "example.com"}, Message: plugin.QuestionMessage{ID: "1"}}
	supply := plugin.Given{Words: strings.Repeat("a", plugin.MaxQuestionText)}
	for name, rules := range worst {
		t.Run(name, func(t *testing.T) {
			p := loadWorst(t, rules, worstEntries)
			runtime.GC()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			began := time.Now()
			plan, err := p.Decide(t.Context(), q, supply)
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			allocated := (after.TotalAlloc - before.TotalAlloc) >> 20
			t.Logf("%v, %d MiB: %v", took.Round(time.Millisecond), allocated, source.Clip(fmt.Sprint(err)))
			if took > 5*promised {
				t.Errorf("decided after %v, want at most %v", took, 5*promised)
			}
			if allocated > 256 {
				t.Errorf("it allocated %d MiB", allocated)
			}
			if failure, ok := errors.AsType[*message.Failure](err); err != nil && (!ok || failure.Reason != message.PolicyFailed) {
				t.Errorf("got %v, %+v, want a plan or policy-failed", err, plan)
			}
		})
	}
}
