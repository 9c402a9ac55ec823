package main

import "strings"

// traceContext is what a request says of its trace, and what W3C Trace Context tells a receiver to make of it.
type traceContext struct {
	Name        string `json:"traceparent_name"` // as it is spelled; empty where the header is absent
	Traceparent string `json:"traceparent"`
	Tracestate  string `json:"tracestate"`
	TraceID     string `json:"parent_trace_id"` // empty: a new trace
	SpanID      string `json:"parent_span_id"`
	Sampled     bool   `json:"parent_sampled"`
}

// traceContext is absent in a fifth of the requests, and malformed in another. Spaces around it come with HTTP/1 only.
func (d dice) traceContext(spaces bool) traceContext {
	if d.chance(0.2) {
		return traceContext{}
	}
	traceID, spanID, flags := d.hex(32), d.hex(16), d.of("00", "01", "01", "01", "02", "03")
	version, rest := "00", ""
	if d.chance(0.1) {
		version = d.of("01", "cc", "fe")
		rest = d.of("", "-later", "-")
	}
	made := traceContext{
		Name:    d.of("traceparent", "traceparent", "Traceparent", "TRACEPARENT", "TraceParent", "tRACEpARENT"),
		TraceID: traceID, SpanID: spanID, Sampled: flags == "01" || flags == "03",
	}
	made.Traceparent = version + "-" + traceID + "-" + spanID + "-" + flags + rest
	if d.chance(0.25) {
		made.Tracestate = d.of("vendor=value", "a=1,b=2", "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
	}
	if spaces && d.chance(0.05) {
		made.Traceparent = " \t" + made.Traceparent + "  "
	}
	if d.chance(0.25) {
		made.TraceID, made.SpanID, made.Sampled = "", "", false
		made.Traceparent = []string{
			"00-" + strings.Repeat("0", 32) + "-" + spanID + "-01",
			"00-" + traceID + "-" + strings.Repeat("0", 16) + "-01",
			"00-" + strings.ToUpper("abcdef"+traceID[6:]) + "-" + spanID + "-01",
			"00-" + traceID + "-" + spanID + "-0",
			"00-" + traceID + "-" + spanID + "-01-more",
			"00-" + traceID + "-" + spanID + "-0g",
			"00-" + traceID[1:] + "-" + spanID + "-01",
			"ff-" + traceID + "-" + spanID + "-01",
			"01-" + traceID + "-" + spanID + "-01later",
			"0-" + traceID + "-" + spanID + "-01",
			"00_" + traceID + "_" + spanID + "_01",
			"00-" + strings.Repeat("x", 32) + "-" + spanID + "-01",
			strings.Repeat("-", 55),
			"traceparent",
			"",
		}[d.IntN(15)]
	}
	return made
}
