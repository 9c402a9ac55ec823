package main

import (
	"fmt"
	"net/http"
	"sync"
)

// meeting lets calls wait for each other.
type meeting struct {
	mutex   sync.Mutex
	arrived int
	all     chan struct{}
}

var calls = meeting{all: make(chan struct{})}

// meet returns once so many have come.
func (m *meeting) meet(of int) {
	m.mutex.Lock()
	m.arrived++
	all := m.all
	if m.arrived == of {
		m.arrived, m.all = 0, make(chan struct{})
		close(all)
	}
	m.mutex.Unlock()
	<-all
}

// pair sends two requests with the same header map, the second one when it is told to; the first is open until then.
func pair(r *http.Request) {
	header := make(http.Header)
	var group sync.WaitGroup
	for i := 0; i < 2; i++ {
		url := fmt.Sprintf("%s/meet?of=2&number=%d&request=%s", backend, i, id(r))
		request, err := http.NewRequestWithContext(r.Context(), "GET", url, nil)
		if err != nil {
			return
		}
		request.Header = header
		group.Add(1)
		go func() {
			defer group.Done()
			send(client, request)
		}()
		if i == 0 {
			<-released
		}
	}
	group.Wait()
}

// prepared makes requests one after the other, so that their header maps lie side by side in memory, or are the same one,
// and then sends them: all of them are open at a time.
func prepared(r *http.Request, number int, same bool) {
	requests := make([]*http.Request, number)
	for i := range requests {
		url := fmt.Sprintf("%s/meet?of=%d&number=%d&request=%s", backend, number, i, id(r))
		request, err := http.NewRequestWithContext(r.Context(), "GET", url, nil)
		if err != nil {
			return
		}
		if same && i > 0 {
			request.Header = requests[0].Header
		}
		requests[i] = request
	}
	var group sync.WaitGroup
	for _, request := range requests {
		request := request
		group.Add(1)
		go func() {
			defer group.Done()
			send(client, request)
		}()
	}
	group.Wait()
}
