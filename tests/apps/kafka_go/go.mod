module gospan.test/kafka_go

go 1.19
