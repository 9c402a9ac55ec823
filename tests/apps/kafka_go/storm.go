package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// Tally is what came of a storm: a number of messages of all shapes, each of which its key names.
type Tally struct {
	Received   int `json:"received"`
	Carried    int `json:"carried"`    // with a context that the program has not put there
	Own        int `json:"own"`        // with one that it has
	Compressed int `json:"compressed"` // sent so
}

const (
	ownContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	perCall    = 16 // messages of a call at most
)

// stormed is the message of a number, always the same one.
func stormed(number int) kafka.Message {
	random := rand.New(rand.NewSource(int64(number)))
	size := random.Intn(100) // of which a record's length is one byte, or is about to be two
	switch kind := random.Intn(100); {
	case kind < 20:
		size = random.Intn(2000)
	case kind < 30:
		size = 7900 + random.Intn(400) // or two, and is about to be three
	case kind < 31:
		size = 60000 + random.Intn(12000) // larger than a page
	}
	message := kafka.Message{Key: []byte(strconv.Itoa(number))}
	if size > 0 || random.Intn(2) == 0 {
		message.Value = make([]byte, size)
		random.Read(message.Value)
	}
	headers := random.Intn(4)
	if random.Intn(50) == 0 {
		headers = 55 + random.Intn(20)
	}
	for i := 0; i < headers; i++ {
		value := make([]byte, random.Intn(80))
		random.Read(value)
		message.Headers = append(message.Headers, kafka.Header{Key: "header-" + strconv.Itoa(i), Value: value})
	}
	if random.Intn(20) == 0 {
		message.Headers = append(message.Headers, kafka.Header{Key: "traceparent", Value: []byte(ownContext)})
	}
	return message
}

func isOwn(message kafka.Message) bool {
	last := len(message.Headers) - 1
	return last >= 0 && message.Headers[last].Key == "traceparent"
}

// differ says how a message is not the one that was sent, but for a traceparent behind all others.
func differ(got, sent kafka.Message) (carried bool, err error) {
	headers := got.Headers
	if len(headers) == len(sent.Headers)+1 && !isOwn(sent) {
		last := headers[len(headers)-1]
		if last.Key != "traceparent" || len(last.Value) != len(ownContext) {
			return false, fmt.Errorf("header %q: %q is too much", last.Key, last.Value)
		}
		headers, carried = headers[:len(headers)-1], true
	}
	if len(headers) != len(sent.Headers) {
		return false, fmt.Errorf("%d headers instead of %d", len(got.Headers), len(sent.Headers))
	}
	for i, header := range headers {
		if header.Key != sent.Headers[i].Key || !bytes.Equal(header.Value, sent.Headers[i].Value) {
			return false, fmt.Errorf("header %d is %q", i, header.Key)
		}
	}
	if !bytes.Equal(got.Value, sent.Value) {
		return false, fmt.Errorf("another value, of %d bytes instead of %d", len(got.Value), len(sent.Value))
	}
	return carried, nil
}

// send sends the messages of some numbers by one of several writers.
func (s *storm) send(numbers []int) error {
	var messages []kafka.Message
	for _, number := range numbers {
		messages = append(messages, stormed(number))
	}
	which := numbers[0] % len(s.writers)
	err := s.writers[which].WriteMessages(context.Background(), messages...)
	for i, number := range numbers {
		// The program's own message is as it was.
		if _, changed := differ(messages[i], stormed(number)); changed != nil && err == nil {
			err = fmt.Errorf("message %d was changed: %w", number, changed)
		}
		if len(messages[i].Headers) != len(stormed(number).Headers) && err == nil {
			err = fmt.Errorf("message %d has got a header", number)
		}
	}
	return err
}

type storm struct {
	writers []*kafka.Writer
	mu      sync.Mutex
	seen    map[int]bool
	tally   Tally
	failure error
}

func (s *storm) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.failure == nil {
		s.failure = err
	}
}

// receive reads so many messages of a partition.
func (s *storm) receive(topic string, partition int, count int64) error {
	config := kafka.ReaderConfig{Brokers: brokers, Topic: topic, Partition: partition, MaxBytes: 1 << 22}
	reader := kafka.NewReader(config)
	defer reader.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for ; count > 0; count-- {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			return err
		}
		number, err := strconv.Atoi(string(message.Key))
		if err != nil {
			return err
		}
		carried, err := differ(message, stormed(number))
		if err != nil {
			return fmt.Errorf("message %d: %w", number, err)
		}
		s.mu.Lock()
		if s.seen[number] {
			err = fmt.Errorf("message %d came twice", number)
		}
		s.seen[number] = true
		s.tally.Received++
		if carried {
			s.tally.Carried++
		}
		if isOwn(message) && !carried {
			s.tally.Own++
		}
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// runStorm sends command.Count messages, command.Partitions calls at a time, and reads all of the topic.
func runStorm(command Command) (Tally, error) {
	s := &storm{seen: map[int]bool{}}
	for _, async := range []bool{false, true, false} {
		s.writers = append(s.writers, &kafka.Writer{
			Addr:         kafka.TCP(brokers...),
			Topic:        command.Topic,
			BatchTimeout: 5 * time.Millisecond,
			RequiredAcks: kafka.RequireAll,
			Async:        async,
			Transport:    &kafka.Transport{},
		})
	}
	s.writers[2].Compression = kafka.Snappy
	jobs := make(chan []int)
	var senders sync.WaitGroup
	for i := 0; i < command.Partitions; i++ {
		senders.Add(1)
		go func() {
			defer senders.Done()
			for numbers := range jobs {
				s.fail(s.send(numbers))
			}
		}()
	}
	for number := 0; number < command.Count; {
		size := 1 + number%perCall
		var numbers []int
		for ; size > 0 && number < command.Count; size-- {
			numbers = append(numbers, number)
			number++
		}
		if numbers[0]%len(s.writers) == 2 {
			s.tally.Compressed += len(numbers)
		}
		jobs <- numbers
	}
	close(jobs)
	senders.Wait()
	for _, writer := range s.writers {
		s.fail(writer.Close())
	}
	offsets, err := lastOffsets(command.Topic)
	s.fail(err)
	var readers sync.WaitGroup
	for partition, count := range offsets {
		readers.Add(1)
		go func(partition int, count int64) {
			defer readers.Done()
			s.fail(s.receive(command.Topic, partition, count))
		}(partition, count)
	}
	readers.Wait()
	if s.failure == nil && s.tally.Received != command.Count {
		s.failure = errors.New("not all messages have arrived")
	}
	return s.tally, s.failure
}
