# server_certificate NAME HOST SANS: an authority of its own, and a server's certificate that it signs, into
# $KEYS: ca.crt, ca.key, tls.crt, tls.key. tls.crt is last: with it the others are complete.
server_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -keyout "$KEYS/ca.key" -out "$KEYS/ca.crt" -subj "/CN=servicedb local $1 CA" \
    -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign'
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$KEYS/tls.key" -out "$KEYS/tls.csr" -subj "/CN=$2"
  openssl x509 -req -in "$KEYS/tls.csr" -CA "$KEYS/ca.crt" -CAkey "$KEYS/ca.key" -set_serial "0x$(openssl rand -hex 16)" -days 3650 -out "$KEYS/tls.crt.new" \
    -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "$3")
  mv "$KEYS/tls.crt.new" "$KEYS/tls.crt"
}
