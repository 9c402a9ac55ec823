// A program that sends messages to Kafka and receives them, as it is told by JSON objects on standard input, each of which
// it answers by one on standard output. It is an HTTP server as well: handlers send and read messages, and whatever is
// done with a message calls it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// Command is what the program is asked to do.
type Command struct {
	Op         string    `json:"op"`
	Topic      string    `json:"topic"`
	Partitions int       `json:"partitions"`
	How        string    `json:"how"`      // which of several ways
	Messages   []Message `json:"messages"` // to send
	Group      string    `json:"group"`    // to read as
	Count      int       `json:"count"`    // messages to read
	Deadline   int       `json:"deadline"` // ms; 0: none
	Cancel     int       `json:"cancel"`   // ms after which it is cancelled; 0: never
	Brokers    []string  `json:"brokers"`  // others than the program's own
	Client     string    `json:"client"`   // a client id
	Bytes      int64     `json:"bytes"`    // that a Writer may put into a batch; 0: its default
	Attempts   int       `json:"attempts"` // of a Writer to send a batch; 0: one
	Timeout    int       `json:"timeout"`  // ms for each; 0: the Writer's default
}

// Message is one to send, or one that was received.
type Message struct {
	Topic     string     `json:"topic"`
	Partition int        `json:"partition"`
	Offset    int64      `json:"offset"`
	Key       *string    `json:"key"`
	Value     *string    `json:"value"`
	Headers   [][]string `json:"headers"`
	Size      int        `json:"size"` // of the value, if that is given by its length only
}

// Answer is what came of it.
type Answer struct {
	Error    string    `json:"error"`
	Offsets  []int64   `json:"offsets"` // by partition: how many messages the broker has
	Messages []Message `json:"messages"`
	Tally    Tally     `json:"tally"` // of a storm
}

var brokers []string

func run(command Command) (answer Answer) {
	var err error
	if len(command.Brokers) == 0 {
		command.Brokers = brokers
	}
	switch command.Op {
	case "topic":
		err = createTopic(command.Topic, command.Partitions)
	case "offsets":
		answer.Offsets, err = lastOffsets(command.Topic)
	case "produce":
		err = produce(command)
	case "keep":
		kept = newWriter(command)
		err = send(command)
	case "send":
		err = send(command)
	case "close":
		err = kept.Close()
	case "write":
		err = writeByConn(command)
	case "consume":
		answer.Messages, err = consume(command)
	case "storm":
		answer.Tally, err = runStorm(command)
	case "conn":
		answer.Messages, err = readByConn(command)
	default:
		err = fmt.Errorf("no op %q", command.Op)
	}
	if err != nil {
		answer.Error = err.Error()
	}
	return answer
}

func main() {
	brokers = os.Args[1:]
	port := serveHTTP()
	out := json.NewEncoder(os.Stdout)
	out.Encode(map[string]int{"pid": os.Getpid(), "http": port})
	in := json.NewDecoder(os.Stdin)
	for {
		var command Command
		if in.Decode(&command) != nil {
			return
		}
		// A goroutine of its own, as nothing of the last command may have to do with this one.
		answers := make(chan Answer)
		go func() { answers <- run(command) }()
		out.Encode(<-answers)
	}
}
