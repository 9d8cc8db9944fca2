package main

import "fmt"

// The rows of the table of SMPP.
const (
	esmeToSMSC = "ESME to SMSC"
	sipToSMSC  = "SIP to SMSC"
)

const smppHead = `SMPP, one bind on each side, on Pebble; the latency is that of the answer:

| run | messages | a second | p50 | p99 | p99 to the SMSC | server: CPU a message | resident | generator: CPU a message | lost | twice | out of order |
|---|---|---|---|---|---|---|---|---|---|---|---|
`

// smppRows are those of both ways to the SMSC.
func smppRows(results string) (string, error) {
	through, err := read(results, "smpp-esme")
	if err != nil {
		return "", err
	}
	sip, err := read(results, "smpp-sip")
	if err != nil {
		return "", err
	}
	sink, err := read(results, "smpp-sink")
	if err != nil {
		return "", err
	}
	row := func(what string, sent, arrived run, p99 string, lost int, generator float64) string {
		return fmt.Sprintf("| %s | %d | %.0f | %.1f ms | %.1f ms | %s | %.1f µs | %d MB | %.1f µs | %d | %d | %d |\n",
			what, sent.Sent, arrived.PerSecond, sent.Latency.P50, sent.Latency.P99, p99,
			arrived.Server.CPU, arrived.Server.Resident>>20, generator, lost, arrived.Duplicates, arrived.OutOfOrder)
	}
	// Who sends over SIP doesn't see what arrives; the sink doesn't see what was sent.
	return row(esmeToSMSC, through, through, fmt.Sprintf("%.1f ms", through.Arrival.P99), through.Lost, through.Generator.CPU) +
		row(sipToSMSC, sip, sink, "–", max(0, sip.Acknowledged-sink.Arrived), sip.Generator.CPU+sink.Generator.CPU), nil
}
