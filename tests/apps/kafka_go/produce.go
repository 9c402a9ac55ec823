package main

import (
	"context"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

func (m Message) outgoing() kafka.Message {
	message := kafka.Message{Topic: m.Topic}
	if m.Key != nil {
		message.Key = []byte(*m.Key)
	}
	if m.Value != nil {
		message.Value = []byte(*m.Value)
	}
	if m.Size > 0 {
		message.Value = []byte(strings.Repeat("x", m.Size))
	}
	for _, header := range m.Headers {
		message.Headers = append(message.Headers, kafka.Header{Key: header[0], Value: []byte(header[1])})
	}
	return message
}

func outgoing(messages []Message) []kafka.Message {
	var all []kafka.Message
	for _, one := range messages {
		all = append(all, one.outgoing())
	}
	return all
}

func newWriter(command Command) *kafka.Writer {
	writer := &kafka.Writer{
		Addr:         kafka.TCP(command.Brokers...),
		Topic:        command.Topic,
		BatchTimeout: 10 * time.Millisecond,
		RequiredAcks: kafka.RequireAll,
		MaxAttempts:  1,
		BatchBytes:   command.Bytes,
		WriteTimeout: time.Duration(command.Timeout) * time.Millisecond,
		Async:        command.How == "async",
		// One of its own knows of topics that were made a moment ago.
		Transport: &kafka.Transport{ClientID: command.Client},
	}
	if command.Attempts > 0 {
		writer.MaxAttempts = command.Attempts
	}
	if command.How == "hash" {
		writer.Balancer = &kafka.Hash{}
	}
	if command.How == "config" {
		dialer := &kafka.Dialer{ClientID: command.Client, Timeout: 10 * time.Second}
		writer = kafka.NewWriter(kafka.WriterConfig{
			Brokers:      command.Brokers,
			Topic:        command.Topic,
			Dialer:       dialer,
			BatchTimeout: 10 * time.Millisecond,
		})
	}
	return writer
}

func (c Command) context() (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	if c.Deadline > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Deadline)*time.Millisecond)
	}
	if c.Cancel > 0 {
		time.AfterFunc(time.Duration(c.Cancel)*time.Millisecond, cancel)
	}
	return ctx, cancel
}

// produce sends all messages by one call, or by a call each.
func produce(command Command) error {
	writer := newWriter(command)
	defer writer.Close()
	ctx, cancel := command.context()
	defer cancel()
	if command.How != "each" {
		return writer.WriteMessages(ctx, outgoing(command.Messages)...)
	}
	for _, one := range command.Messages {
		if err := writer.WriteMessages(ctx, one.outgoing()); err != nil {
			return err
		}
	}
	return nil
}

// A Writer that stays open from command to command.
var kept *kafka.Writer

// send sends messages by that, all by one call.
func send(command Command) error {
	ctx, cancel := command.context()
	defer cancel()
	return kept.WriteMessages(ctx, outgoing(command.Messages)...)
}

func dialLeader(topic string, partition int, client string) (*kafka.Conn, error) {
	dialer := &kafka.Dialer{ClientID: client, Timeout: 10 * time.Second}
	return dialer.DialLeader(context.Background(), "tcp", brokers[0], topic, partition)
}

// writeByConn sends messages over a connection, without a Writer.
func writeByConn(command Command) error {
	conn, err := dialLeader(command.Topic, command.Partitions, command.Client)
	if err != nil {
		return err
	}
	defer conn.Close()
	if command.Deadline > 0 {
		conn.SetWriteDeadline(time.Now().Add(time.Duration(command.Deadline) * time.Millisecond))
	}
	_, err = conn.WriteMessages(outgoing(command.Messages)...)
	return err
}
