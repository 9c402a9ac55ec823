package main

// result is one line: the request, and what became of it. Text that may hold any byte is Latin-1: each byte is the code
// point of its value.
type result struct {
	Number int    `json:"number"`
	Mode   string `json:"mode"`
	request
	Local    string `json:"local"`    // host:port, the peer as the server sees it
	StartNS  int64  `json:"start_ns"` // Unix time before sending
	EndNS    int64  `json:"end_ns"`   // Unix time after the last byte of the response
	Status   int    `json:"status"`   // 0: no response
	Protocol string `json:"protocol"` // 1.0, 1.1 or 2, as the request asked for it
	Checksum string `json:"checksum"` // of all bytes of the response; HTTP/2: of its status, headers and body
	Error    string `json:"error"`
}

func latin1(text string) string {
	runes := make([]rune, len(text))
	for i := range len(text) {
		runes[i] = rune(text[i])
	}
	return string(runes)
}
