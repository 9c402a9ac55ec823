// A program that is only read, never run: it makes the types of kafka-go reachable whose layouts the agent may need, so
// that the linker keeps their descriptors.
package main

import (
	"context"
	"os"
	"time"

	"github.com/segmentio/kafka-go"
)

var kept = []any{
	&kafka.Batch{}, &kafka.Client{}, &kafka.Conn{}, &kafka.Dialer{}, &kafka.Header{}, &kafka.Message{}, &kafka.Reader{},
	&kafka.ReaderConfig{}, &kafka.Writer{}, &kafka.WriterConfig{}, kafka.WriteErrors{}, &kafka.ConsumerGroup{},
}

func main() {
	ctx := context.Background()
	writer := kafka.NewWriter(kafka.WriterConfig{Brokers: os.Args, Topic: os.Args[0]})
	writer.WriteMessages(ctx, kafka.Message{Value: []byte(os.Args[0])})
	defer writer.Close()

	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: os.Args, GroupID: os.Args[0], Topic: os.Args[0]})
	defer reader.Close()
	reader.ReadMessage(ctx)
	message, err := reader.FetchMessage(ctx)
	if err == nil {
		reader.CommitMessages(ctx, message)
	}

	conn, err := kafka.DialLeader(ctx, "tcp", os.Args[0], os.Args[0], 0)
	if err == nil {
		conn.SetDeadline(time.Time{})
		conn.WriteMessages(message)
		conn.ReadBatch(1, 1).ReadMessage()
	}
}
