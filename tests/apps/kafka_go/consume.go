package main

import (
	"context"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

func incoming(message kafka.Message) Message {
	received := Message{Topic: message.Topic, Partition: message.Partition, Offset: message.Offset}
	if message.Key != nil {
		key := string(message.Key)
		received.Key = &key
	}
	if message.Value != nil {
		value := string(message.Value)
		received.Value = &value
	}
	for _, header := range message.Headers {
		received.Headers = append(received.Headers, []string{header.Key, string(header.Value)})
	}
	return received
}

func newReader(command Command) *kafka.Reader {
	config := kafka.ReaderConfig{
		Brokers:     command.Brokers,
		GroupID:     command.Group,
		Topic:       command.Topic,
		MinBytes:    1,
		MaxBytes:    1 << 20,
		MaxWait:     50 * time.Millisecond,
		StartOffset: kafka.FirstOffset,
		MaxAttempts: 2,
	}
	if command.Group == "" {
		config.Partition = command.Partitions
	}
	if command.Client != "" {
		config.Dialer = &kafka.Dialer{ClientID: command.Client, Timeout: 10 * time.Second}
	}
	return kafka.NewReader(config)
}

// consume reads messages, and calls the program's own server for each of them.
func consume(command Command) ([]Message, error) {
	reader := newReader(command)
	defer reader.Close()
	ctx, cancel := command.context()
	defer cancel()
	var received []Message
	var handlers sync.WaitGroup
	defer handlers.Wait()
	handed := make(chan kafka.Message)
	defer close(handed)
	go func() {
		for message := range handed {
			callWith(ctx, message)
			handlers.Done()
		}
	}()
	for len(received) < command.Count {
		var message kafka.Message
		var err error
		if command.How == "read" {
			message, err = reader.ReadMessage(ctx)
		} else {
			message, err = reader.FetchMessage(ctx)
		}
		if err != nil {
			return received, err
		}
		received = append(received, incoming(message))
		switch command.How {
		case "read":
			callWith(context.Background(), message)
		case "fetch":
			callWith(context.Background(), message)
			if err := reader.CommitMessages(ctx, message); err != nil {
				return received, err
			}
		case "goroutine":
			handlers.Add(1)
			go func() {
				callWith(ctx, message)
				handlers.Done()
			}()
		case "channel":
			handlers.Add(1)
			handed <- message
		}
	}
	return received, nil
}

// readByConn reads messages over a connection, without a Reader.
func readByConn(command Command) ([]Message, error) {
	conn, err := dialLeader(command.Topic, command.Partitions, command.Client)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var received []Message
	for len(received) < command.Count {
		message, err := conn.ReadMessage(1 << 20)
		if err != nil {
			return received, err
		}
		received = append(received, incoming(message))
		callWith(context.Background(), message)
	}
	return received, nil
}
