#!/usr/bin/env bash
# One would guess: the certificate that Kubernetes' signer issues for an approved CertificateSigningRequest has the subject of the request, or the request is refused.
# k8s.io/kubernetes 1.36.3, its CertificateAuthority.Sign, by which kube-controller-manager signs: the subject goes through Go's pkix.Name, which leaves UID, DC and emailAddress out, puts the rest into an order of its own and several OUs into one part. Without an error the certificate is for another name: a mapping by the whole DN (PostgreSQL's clientname=DN) no longer fits, and two people of one name that differ in UID have the same subject.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >main.go <<'GO'
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"time"

	certificates "k8s.io/api/certificates/v1"
	"k8s.io/kubernetes/pkg/controller/certificates/authority"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(err)
	issuer, err := x509.ParseCertificate(der)
	check(err)
	text, err := os.ReadFile("request.pem")
	check(err)
	request, _ := pem.Decode(text)
	signer := &authority.CertificateAuthority{Certificate: issuer, PrivateKey: key}
	signed, err := signer.Sign(request.Bytes, authority.PermissiveSigningPolicy{TTL: time.Minute, Usages: []certificates.KeyUsage{certificates.UsageClientAuth}, Now: time.Now})
	check(err)
	check(pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: signed}))
}
GO
cat >go.mod <<'MOD'
module demo

go 1.26
MOD
# The module's own requirements of its parts have no versions: each is replaced by the release of the same number.
file=$(go mod download -json k8s.io/kubernetes@v1.36.3 | sed -n 's/.*"GoMod": "\(.*\)",/\1/p')
go mod edit -require=k8s.io/kubernetes@v1.36.3
for part in $(sed -n 's/^\t\(k8s.io\/[a-z-]*\) v0\.0\.0\( .*\)\{0,1\}$/\1/p' "$file"); do go mod edit -replace "$part=$part@v0.36.3"; done
go build -mod=mod -o demo . 2>go.log || { tail -n 5 go.log; exit 1; }
for subject in "/DC=com/DC=example/OU=people/OU=shop/UID=42/CN=Jane Doe" "/DC=com/DC=example/OU=people/OU=shop/UID=43/CN=Jane Doe" "/CN=jane/O=shop/C=DE/emailAddress=jane@example.com"; do
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -subj "$subject" -out request.pem 2>/dev/null
  ./demo >signed.pem
  echo "requested $(openssl req -in request.pem -noout -subject -nameopt RFC2253)"
  echo "signed    $(openssl x509 -in signed.pem -noout -subject -nameopt RFC2253)"
done | tee found.txt
expected='requested subject=CN=Jane Doe,UID=42,OU=shop,OU=people,DC=example,DC=com
signed    subject=CN=Jane Doe,OU=people+OU=shop
requested subject=CN=Jane Doe,UID=43,OU=shop,OU=people,DC=example,DC=com
signed    subject=CN=Jane Doe,OU=people+OU=shop
requested subject=emailAddress=jane@example.com,C=DE,O=shop,CN=jane
signed    subject=CN=jane,O=shop,C=DE'
[[ $(<found.txt) == "$expected" ]] || { echo "this has changed" >&2; exit 1; }
