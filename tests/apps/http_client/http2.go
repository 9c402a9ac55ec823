package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
)

// http2 sends over one HTTP/2 connection: scheme https with TLS, http without.
func http2(scheme, address string) (exchange, func()) {
	transport := &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // its certificate was made a moment ago
		DisableCompression: true,
		Protocols:          new(http.Protocols),
	}
	transport.Protocols.SetHTTP2(scheme == "https")
	transport.Protocols.SetUnencryptedHTTP2(scheme == "http")

	send := func(made *request, outcome *result) error {
		outcome.Protocol = "2"
		return roundTrip(transport, scheme, address, made, outcome)
	}
	return send, transport.CloseIdleConnections
}

func roundTrip(transport *http.Transport, scheme, address string, made *request, outcome *result) error {
	target, err := url.ParseRequestURI(made.Target)
	if err != nil {
		return err
	}
	target.Scheme, target.Host = scheme, address
	var body io.Reader
	if made.Body != "" {
		body = strings.NewReader(made.Body)
		if made.Chunked {
			body = io.MultiReader(body) // of unknown length
		}
	}
	out, err := http.NewRequest(made.Method, target.String(), body)
	if err != nil {
		return err
	}
	out.URL, out.Host = target, made.Host
	out.Header["User-Agent"] = []string{""} // none
	if made.UserAgent != nil {
		out.Header["User-Agent"] = []string{*made.UserAgent}
	}
	if made.Name != "" {
		out.Header["Traceparent"] = []string{made.Traceparent}
	}
	if made.Tracestate != "" {
		out.Header["Tracestate"] = []string{made.Tracestate}
	}
	for _, one := range made.Headers {
		out.Header[one.name] = []string{one.value}
	}
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { outcome.Local = got.Conn.LocalAddr().String() }}

	response, err := transport.RoundTrip(out.WithContext(httptrace.WithClientTrace(out.Context(), trace)))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	outcome.Status = response.StatusCode
	hash := sha256.New()
	fmt.Fprintln(hash, response.StatusCode)
	if err := response.Header.Write(hash); err != nil { // sorted by name
		return err
	}
	_, err = io.Copy(hash, response.Body)
	outcome.Checksum = hex.EncodeToString(hash.Sum(nil)[:8])
	return err
}
