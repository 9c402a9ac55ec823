package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// createTopic waits as well until the topic can be used.
func createTopic(topic string, partitions int) error {
	var conn *kafka.Conn
	var err error
	for i := 0; i < 100; i++ {
		if conn, err = kafka.Dial("tcp", brokers[0]); err == nil {
			err = conn.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1})
			conn.Close()
			if err == nil || strings.Contains(err.Error(), "already exists") {
				break
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	for i := 0; i < 100; i++ {
		if _, err = lastOffsets(topic); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("topic %s: %w", topic, err)
}

// lastOffsets asks the broker how many messages each partition has had.
func lastOffsets(topic string) ([]int64, error) {
	conn, err := kafka.Dial("tcp", brokers[0])
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	partitions, err := conn.ReadPartitions(topic)
	if err != nil {
		return nil, err
	}
	offsets := make([]int64, len(partitions))
	for _, one := range partitions {
		leader, err := dialLeader(topic, one.ID, "")
		if err != nil {
			return nil, err
		}
		offsets[one.ID], err = leader.ReadLastOffset()
		leader.Close()
		if err != nil {
			return nil, err
		}
	}
	return offsets, nil
}
