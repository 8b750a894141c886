// Go's Kafka clients, driven by the tests: see programs.py for what each verb does and prints.
//
//	clients LIBRARY VERB BOOTSTRAP TOPIC [ARGUMENT]
package main

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	timeout           = 30 * time.Second
	sessionTimeout    = 6 * time.Second
	heartbeatInterval = 500 * time.Millisecond
)

// What each library does.
type client interface {
	produce(topic, codec string, records []record) error
	consume(topic string, count int) error
	group(topic, group string, leave <-chan struct{}) error
	offsets(topic, group string) error
	admin(topic string) error
	refused(topic string) error
	transactions(topic, group string) error
	start(topic string) error
}

var libraries = map[string]func(bootstrap string) client{
	"franz-go": func(bootstrap string) client { return franz{bootstrap} },
	"sarama":   func(bootstrap string) client { return newSarama(bootstrap) },
}

func main() {
	if len(os.Args) < 5 || libraries[os.Args[1]] == nil {
		fail(errors.New("usage: clients LIBRARY VERB BOOTSTRAP TOPIC [ARGUMENT]"))
	}
	library, verb, topic, argument := libraries[os.Args[1]](os.Args[3]), os.Args[2], os.Args[4], ""
	if len(os.Args) > 5 {
		argument = os.Args[5]
	}
	switch verb {
	case "produce":
		fail(library.produce(topic, argument, read()))
	case "consume":
		count, err := strconv.Atoi(argument)
		fail(err)
		fail(library.consume(topic, count))
	case "group":
		leave := make(chan struct{})
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(leave)
		}()
		fail(library.group(topic, argument, leave))
	case "offsets":
		fail(library.offsets(topic, argument))
	case "admin":
		fail(library.admin(topic))
	case "refused":
		fail(library.refused(topic))
	case "transactions":
		fail(library.transactions(topic, argument))
	case "start":
		fail(library.start(topic))
	default:
		fail(fmt.Errorf("no verb %s", verb))
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A record as it stands on a line: key, value, then name and value of each header, each base64 behind a `=`, or `-` for null.
type record struct {
	key, value []byte
	headers    []header
}

type header struct {
	name  string
	value []byte
}

func word(bytes []byte) string {
	if bytes == nil {
		return "-"
	}
	return "=" + base64.StdEncoding.EncodeToString(bytes)
}

func bytes(word string) []byte {
	if word == "-" {
		return nil
	}
	bytes, err := base64.StdEncoding.DecodeString(word[1:])
	fail(err)
	return append([]byte{}, bytes...)
}

func read() (records []record) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		words := strings.Split(lines.Text(), " ")
		one := record{key: bytes(words[0]), value: bytes(words[1])}
		for at := 2; at < len(words); at += 2 {
			one.headers = append(one.headers, header{string(bytes(words[at])), bytes(words[at+1])})
		}
		records = append(records, one)
	}
	fail(lines.Err())
	return records
}

func print(one record) {
	words := []string{word(one.key), word(one.value)}
	for _, header := range one.headers {
		words = append(words, word([]byte(header.name)), word(header.value))
	}
	fmt.Println(strings.Join(words, " "))
}
