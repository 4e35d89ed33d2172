// pgx through the gateway, as its users use it. Built from Debian's sources: GO111MODULE=off GOPATH=/usr/share/gocode.
// Prints `plan N`, then `ok NAME` or `failed NAME: why` for the harness.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

type test struct {
	name string
	run  func(context.Context, *pgx.Conn) error
}

// sqlstate is the code of an error the server gave, or a text that is none.
func sqlstate(err error) string {
	var told *pgconn.PgError
	if errors.As(err, &told) {
		return told.Code
	}
	return fmt.Sprintf("no SQLSTATE: %v", err)
}

func same(found, wanted interface{}) error {
	if found != wanted {
		return fmt.Errorf("found %v instead of %v", found, wanted)
	}
	return nil
}

func value(ctx context.Context, c *pgx.Conn, wanted int, sql string, arguments ...interface{}) error {
	var found int
	if err := c.QueryRow(ctx, sql, arguments...).Scan(&found); err != nil {
		return err
	}
	return same(found, wanted)
}

// query: pgx prepares each text once, and reads results in binary.
func query(ctx context.Context, c *pgx.Conn) error {
	for number := 0; number < 50; number++ {
		var text string
		var raw []byte
		var when time.Time
		row := c.QueryRow(ctx, "SELECT $1::text, $2::bytea, to_timestamp($3::int)", fmt.Sprint("späße ", number), []byte{0, 255}, number)
		if err := row.Scan(&text, &raw, &when); err != nil {
			return err
		}
		if text != fmt.Sprint("späße ", number) || !bytes.Equal(raw, []byte{0, 255}) || when.Unix() != int64(number) {
			return fmt.Errorf("read %q %v %v", text, raw, when)
		}
	}
	return nil
}

func prepared(ctx context.Context, c *pgx.Conn) error {
	if _, err := c.Prepare(ctx, "sum", "SELECT $1::int + $2::int"); err != nil {
		return err
	}
	for number := 0; number < 20; number++ {
		if err := value(ctx, c, number+1, "sum", number, 1); err != nil {
			return err
		}
	}
	return c.Deallocate(ctx, "sum")
}

func simple(ctx context.Context, c *pgx.Conn) error {
	if err := value(ctx, c, 42, "SELECT $1::int", pgx.QuerySimpleProtocol(true), 42); err != nil {
		return err
	}
	results, err := c.PgConn().Exec(ctx, "SELECT 1; SELECT 2; SELECT 3").ReadAll()
	if err != nil {
		return err
	}
	return same(len(results), 3)
}

func copying(ctx context.Context, c *pgx.Conn) error {
	if _, err := c.Exec(ctx, "CREATE TEMPORARY TABLE copied (id int, words text)"); err != nil {
		return err
	}
	rows := make([][]interface{}, 50_000)
	for number := range rows {
		rows[number] = []interface{}{int32(number), fmt.Sprint("word ", number)}
	}
	// Binary, as pgx does it.
	count, err := c.CopyFrom(ctx, pgx.Identifier{"copied"}, []string{"id", "words"}, pgx.CopyFromRows(rows))
	if err != nil {
		return err
	}
	if err := same(count, int64(len(rows))); err != nil {
		return err
	}
	var out bytes.Buffer
	if _, err := c.PgConn().CopyTo(ctx, &out, "COPY (SELECT * FROM copied ORDER BY id) TO STDOUT"); err != nil {
		return err
	}
	return same(strings.Count(out.String(), "\n"), len(rows))
}

func batch(ctx context.Context, c *pgx.Conn) error {
	many := &pgx.Batch{}
	for number := 0; number < 200; number++ {
		many.Queue("SELECT $1::int", number)
	}
	results := c.SendBatch(ctx, many)
	for number := 0; number < 200; number++ {
		var found int
		if err := results.QueryRow().Scan(&found); err != nil {
			return err
		}
		if err := same(found, number); err != nil {
			return err
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	failing := &pgx.Batch{}
	failing.Queue("SELECT 1")
	failing.Queue("SELECT 1 / $1::int", 0)
	failing.Queue("SELECT 3")
	if err := same(sqlstate(c.SendBatch(ctx, failing).Close()), "22012"); err != nil {
		return err
	}
	return value(ctx, c, 1, "SELECT 1")
}

// cancel: with a raw CancelRequest, so that the connection can be looked at afterwards.
func cancel(ctx context.Context, c *pgx.Conn) error {
	done := make(chan error)
	go func() {
		_, err := c.Exec(ctx, "SELECT pg_sleep(60)")
		done <- err
	}()
	for {
		if err := c.PgConn().CancelRequest(ctx); err != nil {
			return err
		}
		select {
		case err := <-done:
			if err := same(sqlstate(err), "57014"); err != nil {
				return err
			}
			return value(ctx, c, 1, "SELECT 1")
		case <-time.After(100 * time.Millisecond): // it may not have begun
		}
	}
}

func transaction(ctx context.Context, c *pgx.Conn) error {
	if _, err := c.Exec(ctx, "CREATE TEMPORARY TABLE changed (id int)"); err != nil {
		return err
	}
	for _, commit := range []bool{true, false} {
		tx, err := c.Begin(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "INSERT INTO changed VALUES (1)"); err != nil {
			return err
		}
		if !commit {
			if err := same(sqlstate(func() error { _, err := tx.Exec(ctx, "SELECT 1/0"); return err }()), "22012"); err != nil {
				return err
			}
			err = tx.Rollback(ctx)
		} else {
			err = tx.Commit(ctx)
		}
		if err != nil {
			return err
		}
	}
	return value(ctx, c, 1, "SELECT count(*)::int FROM changed")
}

func notifications(ctx context.Context, c *pgx.Conn) error {
	if _, err := c.Exec(ctx, "LISTEN pgx_news"); err != nil {
		return err
	}
	if _, err := c.Exec(ctx, "NOTIFY pgx_news, 'extra'"); err != nil {
		return err
	}
	told, err := c.WaitForNotification(ctx)
	if err != nil {
		return err
	}
	return same(told.Payload, "extra")
}

func refusedToken(ctx context.Context, c *pgx.Conn) error {
	settings := c.Config()
	settings.Password = "no token"
	_, err := pgx.ConnectConfig(ctx, settings)
	return same(sqlstate(err), "28P01")
}

func main() {
	tests := []test{
		{"query", query}, {"prepared statements", prepared}, {"simple protocol", simple}, {"COPY in and out", copying},
		{"batches", batch}, {"cancel", cancel}, {"transactions", transaction}, {"notifications", notifications},
		{"a wrong token has its SQLSTATE", refusedToken},
	}
	fmt.Println("plan", len(tests))
	for _, test := range tests {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		c, err := pgx.Connect(ctx, "")
		if err == nil {
			err = test.run(ctx, c)
			c.Close(ctx)
		}
		stop()
		if err == nil {
			fmt.Println("ok", test.name)
		} else {
			fmt.Printf("failed %s: %v\n", test.name, err)
		}
	}
}
