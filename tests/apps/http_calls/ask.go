package main

import (
	"fmt"
	"io"
	"log"
	"strconv"
	"sync"
)

func integer(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// ask sends requests by HTTP/2, so many at a time.
func ask(url string, first, number, atATime int) {
	var group sync.WaitGroup
	for worker := 0; worker < atATime; worker++ {
		worker := worker
		group.Add(1)
		go func() {
			defer group.Done()
			for n := worker; n < number; n += atATime {
				response, err := trusting.Get(fmt.Sprintf("%s?id=%d", url, first+n))
				if err != nil {
					log.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.ProtoMajor != 2 || response.StatusCode != 200 {
					log.Fatalf("%s %s", response.Proto, response.Status)
				}
			}
		}()
	}
	group.Wait()
}
