#!/usr/bin/env bash
# TLS: X.509 and PSK against libnbd and QEMU, who is let in, downgrades, and what is said before it.
set -u
. "$(dirname "$0")/../lib/nbd.sh"
command -v certtool >/dev/null || { echo "skip - certtool is not installed"; exit 77; }
if "$LAMINA" serve --tls-creds /nonexistent x 2>&1 | grep -q 'without GnuTLS'; then
    echo "skip - built without GnuTLS"
    exit 77
fi

# --- an authority, a server, two clients it knows, one of another authority
certs() { # FOLDER CA-KEY-FOLDER ROLE NAME
    mkdir -p "$1"
    certtool --generate-privkey --key-type=ecdsa --outfile "$1/$3-key.pem" >/dev/null 2>&1
    {
        echo "organization = Lamina"
        echo "cn = $4"
        [ "$3" = server ] && printf 'dns_name = %s\nip_address = 127.0.0.1\ntls_www_server\n' "$4"
        [ "$3" = client ] && echo tls_www_client
        printf 'encryption_key\nsigning_key\nexpiration_days = 30\n'
    } >info
    certtool --generate-certificate --load-privkey "$1/$3-key.pem" --load-ca-certificate "$2/ca-cert.pem" \
        --load-ca-privkey "$2/ca-key.pem" --template info --outfile "$1/$3-cert.pem" >/dev/null 2>&1
    [ "$1" = "$2" ] || cp "$2/ca-cert.pem" "$1/"
}
authority() {
    mkdir -p "$1"
    certtool --generate-privkey --key-type=ecdsa --outfile "$1/ca-key.pem" >/dev/null 2>&1
    printf 'cn = authority %s\nca\ncert_signing_key\nexpiration_days = 30\n' "$1" >info
    certtool --generate-self-signed --load-privkey "$1/ca-key.pem" --template info --outfile "$1/ca-cert.pem" >/dev/null 2>&1
}
authority ca
authority other
certs srv ca server localhost
certs one ca client host1
certs two ca client host2
certs evil other client host1
cp ca/ca-cert.pem evil/ca-cert.pem
mkdir none && cp ca/ca-cert.pem none/
mkdir psk psk2
printf 'alice:%s\nbob:%s\n' 00112233445566778899aabbccddeeff0011223344556677 ffeeddccbbaa99887766554433221100aabbccddeeff0011 >psk/keys.psk
printf 'alice:%s\n' 0000000000000000000000000000000000000000000000ff >psk2/keys.psk
cp psk/keys.psk both.psk
mkdir both && cp srv/*.pem both/ && cp psk/keys.psk both/

truncate -s 8M disk.img
dd if=/dev/urandom of=disk.img bs=1M count=3 seek=2 conv=notrunc status=none
x509() { echo "nbds+unix:///$2?socket=$sock&tls-certificates=$PWD/$1&tls-verify-peer=${3:-false}"; }
psk() { echo "nbds+unix://$2@/${3-}?socket=$sock&tls-psk-file=$PWD/$1/keys.psk"; }
refused() { # WHAT COMMAND...
    local what=$1
    shift
    if timeout 20 "$@" >refused.log 2>&1; then fail "$what"; else ok "$what"; fi
}
qcreds() { echo "tls-creds-x509,id=t,endpoint=client,dir=$PWD/$1"; }
qimage() { echo "driver=nbd,server.type=unix,server.path=$sock,export=${2-},tls-creds=t${3-}"; }

# --- X.509
serve -f raw --tls-creds srv disk.img
check "the URI that is printed says TLS" grep -q "^nbds+unix:///?socket=$sock\$" server.log
is "nbdinfo over TLS" "$(nbdinfo --json "$(x509 one '')" | jq -c '[.TLS, .exports[0]."export-size"]')" '[true,8388608]'
check "nbdcopy from us over TLS, 4 connections" nbdcopy -C 4 "$(x509 one '')" out.img
check "and it is the same" cmp disk.img out.img
dd if=/dev/urandom of=new.img bs=1M count=8 status=none
check "nbdcopy to us over TLS" nbdcopy -C 4 --flush new.img "$(x509 two '')"
check "qemu-io over TLS" qemu-io --object "$(qcreds one)" --image-opts "$(qimage one '' ,tls-hostname=localhost)" \
    -c 'write -P 9 1M 300k' -c 'read -P 9 1M 300k' -c flush
check "qemu-img convert over TLS" qemu-img convert --object "$(qcreds two)" --image-opts "$(qimage two '' ,tls-hostname=localhost)" -O raw out2.img
check "and it is what was written" cmp disk.img out2.img
if ! "$LAMINA" info nbd://127.0.0.1:1/ 2>&1 | grep -q 'no driver "nbd"'; then
    check "our client, with a certificate" "$LAMINA" compare -U -f raw -F raw "$(x509 one '')" disk.img
    refused "our client, another authority's" "$LAMINA" compare -U -f raw -F raw "$(x509 evil '')" disk.img
    refused "our client, without a certificate" "$LAMINA" compare -U -f raw -F raw "$(x509 none '')" disk.img
    refused "our client asks for the server's name" "$LAMINA" compare -U -f raw -F raw "$(x509 other '' true)" disk.img
fi
refused "another authority's client" nbdinfo --size "$(x509 evil '')"
refused "a client that has no certificate" nbdinfo --size "$(x509 none '')"
refused "a client without TLS (libnbd)" nbdinfo --size "$uri"
refused "a client without TLS (QEMU)" qemu-img info "nbd+unix:///?socket=$sock"
check "and all that harmed nobody" nbdinfo --size "$(x509 one '')"
check "clean stop" stop

port=$((20000 + RANDOM % 20000))
start announced "$LAMINA" serve -f raw --tls-creds srv --port $port --bind 0.0.0.0 disk.img
is "beyond this machine with TLS, the server's name checked" "$(nbdinfo --size "nbds://localhost:$port/?tls-certificates=$PWD/one")" 8388608
check "our client checks it too" "$LAMINA" info -f raw "nbds://localhost:$port/?tls-certificates=$PWD/one"
refused "and refuses another" "$LAMINA" info -f raw "nbds://ip6-localhost:$port/?tls-certificates=$PWD/one"
refused "a server by another name" nbdinfo --size "nbds://ip6-localhost.example:$port/?tls-certificates=$PWD/one"
stop
refused "TLS that is only allowed is not enough beyond this machine" "$LAMINA" serve -f raw --tls allow --tls-creds srv --port $port --bind 0.0.0.0 disk.img

# --- PSK, and both
serve -f raw --tls-creds psk disk.img
is "PSK" "$(nbdinfo --size "$(psk psk alice)")" 8388608
is "PSK, another identity" "$(nbdinfo --size "$(psk psk bob)")" 8388608
refused "PSK: a wrong key" nbdinfo --size "$(psk psk2 alice)"
refused "PSK: an unknown identity" nbdinfo --size "nbds+unix://carol@/?socket=$sock&tls-psk-file=$PWD/psk/keys.psk"
check "QEMU with PSK" qemu-img info --object "tls-creds-psk,id=t,endpoint=client,dir=$PWD/psk,username=bob" --image-opts "$(qimage psk)"
stop
serve -f raw --tls-creds both --tls allow disk.img
is "one server, X.509" "$(nbdinfo --size "$(x509 one '')")" 8388608
is "one server, PSK" "$(nbdinfo --size "$(psk psk alice)")" 8388608
is "allowed: without" "$(nbdinfo --json "$uri" | jq .TLS)" false
stop
serve -f raw --tls-creds srv --tls-any-client disk.img
is "any client: without a certificate" "$(nbdinfo --size "$(x509 none '')")" 8388608
stop

# --- who sees what
truncate -s 1M a.img b.img c.img
cat >zones.ini <<INI
[server]
tls-creds = both
tls = allow
[export all]
image = a.img
format = raw
[export host1]
image = b.img
format = raw
allow = cert:host1
[export alice]
image = c.img
format = raw
allow = psk:alice dn:CN=host2,O=Lamina
[export me]
image = disk.img
format = raw
allow = uid:$(id -u)
[folder mine]
folder = .
read-only = yes
allow = uid:12345
INI
names() { nbdinfo --list --json "$1" 2>/dev/null | jq -c '[.exports[]."export-name"]'; }
serve --config zones.ini
is "the certificate's name opens an export" "$(names "$(x509 one '')")" '["all","host1","me"]'
is "the distinguished name does" "$(names "$(x509 two '')")" '["all","alice","me"]'
is "a PSK identity does" "$(names "$(psk psk alice)")" '["all","alice","me"]'
is "another one does not" "$(names "$(psk psk bob)")" '["all","me"]'
is "without TLS there is the user" "$(names "$uri")" '["all","me"]'
is "GO by whom it lists" "$(nbdinfo --size "$(x509 one host1)")" 1048576
refused "GO by another" nbdinfo --size "$(x509 two host1)"
refused "GO without TLS" nbdinfo --size "nbd+unix:///host1?socket=$sock"
refused "a folder that lists somebody else" nbdinfo --size "nbd+unix:///mine/a.img?socket=$sock"
stop

# --- the server's side of STARTTLS, by hand
serve -f raw --tls-creds psk --tls allow disk.img
python3 - "$sock" <<'END2' && ok "what is sent behind STARTTLS hangs up" || fail "what is sent behind STARTTLS hangs up"
import socket, struct, sys
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    s.connect(sys.argv[1])
    s.recv(18)
    s.sendall(struct.pack(">I", 3))
    return s
def option(code, data=b""):
    return b"IHAVEOPT" + struct.pack(">II", code, len(data)) + data
def replies(s):
    data = b""
    try:
        while True:
            more = s.recv(4096)
            if not more:
                return data
            data += more
    except ConnectionError:
        return data
for behind in (option(8), option(3), b"x", option(7, b"\0\0\0\0\0\0")):
    s = connect()
    s.sendall(option(5) + behind)
    assert replies(s) == b"", "it answered"
s = connect()  # junk instead of a hello
s.sendall(option(5))
assert struct.unpack(">QIII", s.recv(20))[2] == 1
s.sendall(b"GET / HTTP/1.0\r\n\r\n")
s.shutdown(socket.SHUT_WR)
assert b"HTTP" not in replies(s)
END2
check "and the server goes on" nbdinfo --size "$(psk psk alice)"
stop

# --- the qemu-nbd face
qnbd=$(dirname "$LAMINA")/compat/qemu-nbd
listens() { [ -S "$sock" ]; }
x509_object() { echo "tls-creds-x509,id=s,endpoint=server,dir=$PWD/srv,verify-peer=$1"; }
start listens "$qnbd" -t -f raw -k "$sock" --object "$(x509_object yes)" --tls-creds s \
    --object 'authz-simple,id=a,identity=CN=host1,,O=Lamina' --tls-authz a disk.img
is "qemu-nbd --tls-creds --tls-authz" "$(nbdinfo --size "$(x509 one '')")" 8388608
refused "qemu-nbd --tls-authz: another" nbdinfo --size "$(x509 two '')"
refused "qemu-nbd --tls-creds: without TLS" nbdinfo --size "$uri"
stop
rm -f "$sock"
start listens "$qnbd" -t -f raw -k "$sock" --object "$(x509_object false)" --tls-creds s disk.img
is "verify-peer=false" "$(nbdinfo --size "$(x509 none '')")" 8388608
stop
start listens "$qnbd" -t -f raw -k "$sock" --object "tls-creds-psk,id=s,endpoint=server,dir=$PWD/psk" --tls-creds s disk.img
is "PSK" "$(nbdinfo --size "$(psk psk bob)")" 8388608
stop
says() { # WHAT WANTED COMMAND...
    local what=$1 want=$2 got
    shift 2
    got=$("$@" 2>&1)
    if grep -qF -- "$want" <<<"$got"; then ok "$what"; else fail "$what: $got"; fi
}
says "no such credentials" "No TLS credentials with id 's'" "$qnbd" -k "$sock" --tls-creds s disk.img
says "a client's credentials" "Expecting TLS credentials with a server endpoint" "$qnbd" -k "$sock" --tls-creds s \
    --object "tls-creds-psk,id=s,endpoint=client,dir=$PWD/psk" disk.img
says "a folder without keys" "server-cert.pem" "$LAMINA" serve -f raw --tls-creds one disk.img
says "a bad priority" "GnuTLS does not know" "$LAMINA" serve -f raw --tls-creds srv --tls-priority NONSENSE disk.img
exit $bad
