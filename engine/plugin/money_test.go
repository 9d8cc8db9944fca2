package plugin

import (
	"math"
	"testing"
)

func TestMoney(t *testing.T) {
	for in, want := range map[string]string{
		"10": "10.00", "10.00": "10.00", "0.01": "0.01", "0.000000001": "0.000000001", "-3.5": "-3.50", "9223372035.999999999": "9223372035.999999999",
	} {
		m, err := ParseMoney(in)
		if err != nil || m.String() != want {
			t.Errorf("ParseMoney(%q) = %s, %v, want %s", in, m, err, want)
		}
	}
	for _, bad := range []string{"", ".", "1.", ".5", "1,5", "1e3", "0x1", "+1", "--1", "1.0000000001", "9223372037", "1 "} {
		if m, err := ParseMoney(bad); err == nil {
			t.Errorf("ParseMoney(%q) = %s", bad, m)
		}
	}
	if got := Money(math.MinInt64).String(); got != "-9223372036.854775808" {
		t.Errorf("the least amount is %s", got)
	}
}

func FuzzMoney(f *testing.F) {
	f.Add("10.00")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseMoney(s)
		if err != nil {
			return
		}
		if again, err := ParseMoney(m.String()); err != nil || again != m {
			t.Errorf("%q is %s and then %s, %v", s, m, again, err)
		}
	})
}
