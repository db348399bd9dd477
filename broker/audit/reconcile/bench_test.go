package reconcile_test

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatepass/broker/audit/audittest"
	"gatepass/broker/audit/reconcile"
)

// BenchmarkRun holds a small log against many events, of which a tenth are its
// own and the rest 1,000 other sessions'. "peak-MB" is the most that the heap
// came to.
func BenchmarkRun(b *testing.B) {
	const perFile, files = 10_000, 10
	w := newWorld(b)
	shared, _ := day(w)
	if err := w.log.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	if err := w.trail.Write(dir); err != nil {
		b.Fatal(err)
	}
	var size int64
	for n := range files {
		size += bulk(b, filepath.Join(dir, fmt.Sprintf("%03d.json.gz", n)), n*perFile, perFile, shared)
	}
	b.SetBytes(size)
	var peak uint64
	for b.Loop() {
		var sum reconcile.Summary
		var err error
		peak = max(peak, audittest.PeakHeap(func() {
			sum, err = reconcile.Run(b.Context(), reconcile.Options{LogDir: w.dir, Files: []string{dir}}, func(reconcile.Finding) error { return nil })
		}))
		if err != nil || sum.Unexplained != 0 || sum.Explained < perFile*files/10 {
			b.Fatalf("%v, %+v", err, sum)
		}
	}
	b.ReportMetric(float64(perFile*files)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(peak)/1e6, "peak-MB")
}

// bulk writes a file of n events and returns how long they are, unpacked.
func bulk(b *testing.B, name string, from, n int, shared *session) (size int64) {
	b.Helper()
	f, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	z, _ := gzip.NewWriterLevel(f, gzip.BestSpeed)
	out := bufio.NewWriterSize(z, 1<<20)
	out.WriteString(`{"Records":[`)
	padding := strings.Repeat(`"key":"value of a request, as long as they are","more":[1,2,3,{"a":"b"}],`, 8)
	for i := range n {
		arn, key := fmt.Sprintf("arn:aws:sts::111122223333:assumed-role/Other/session-%d", i%1000), fmt.Sprintf("ASIAEXAMPLEOTHER%04d", i%1000)
		if i%10 == 0 {
			arn, key = shared.arn(), shared.AccessKeyID
		}
		if i > 0 {
			out.WriteByte(',')
		}
		m, _ := fmt.Fprintf(out, `{"eventVersion":"1.11","userIdentity":{"type":"AssumedRole","principalId":"AROAEXAMPLE:%s","arn":%q,"accountId":"111122223333","accessKeyId":%q,"sessionContext":{"sessionIssuer":{"type":"Role","principalId":"AROAEXAMPLE","arn":"arn:aws:iam::111122223333:role/x","accountId":"111122223333","userName":"x"},"attributes":{"creationDate":"2026-11-03T10:00:42Z","mfaAuthenticated":"false"}}},"eventTime":"2026-11-03T10:02:30Z","eventSource":"ec2.amazonaws.com","eventName":"DescribeInstances","awsRegion":"eu-west-1","sourceIPAddress":"203.0.113.7","userAgent":"aws-cli/2.17.20 os/linux#6.8.0","requestParameters":{%s"last":1},"responseElements":null,"requestID":"%08d-0000-4000-8000-000000000000","eventID":"%08d-1111-4000-8000-000000000000","readOnly":true,"eventType":"AwsApiCall","managementEvent":true,"recipientAccountId":"111122223333","eventCategory":"Management","tlsDetails":{"tlsVersion":"TLSv1.3","cipherSuite":"TLS_AES_128_GCM_SHA256","clientProvidedHostHeader":"ec2.eu-west-1.amazonaws.com"}}`,
			"s", arn, key, padding, from+i, from+i)
		size += int64(m)
	}
	out.WriteString(`]}`)
	if err := out.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := z.Close(); err != nil {
		b.Fatal(err)
	}
	return size
}
