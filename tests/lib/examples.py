#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""examples.py PROGRAM: every example of the man pages is run, each in a folder of its own.

A folder begins with copies of a few images. What an example needs besides stands in the table `before`; names of places that are not ours
are replaced by others in the folder. A server is begun, seen to listen, and ended by SIGTERM. An example that does not end well fails.
"""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import time

program = os.path.abspath(sys.argv[1])
compat = os.path.join(os.path.dirname(program), "compat")  # the names of the faces
os.environ["PATH"] = ":".join([os.path.dirname(program), compat, os.environ["PATH"]])

elsewhere = [
    ("/dev/vg0/vm1", "lv.img"), ("/mnt/backup/", "backup/"), ("/new/", "new/"), (" /run/", " run/"), ("=/run/", "=$PWD/run/"), ("/srv/", "srv/"),
    ("ssh host 'cat > disk.qcow2'", "cat > copy"), ("ssh host lamina", "lamina"), ("nbd://host/b", "b.qcow2"), ("0.0.0.0", "127.0.0.1"),
    ("lvm:disk0.img,disk1.img,disk2.img//vg0/home", "lvm:pv3.img,pv4.img,pv5.img,pv6.img,pv7.img//vgr/r5"),
    ("lvm:disk0.img,disk1.img,disk3.img//vg0/home", "lvm:pv3.img,pv5.img,pv6.img,pv7.img,new.img//vgr/r5"),
    ("--port 10809", "--port 0"), ("uid:libvirt-qemu", f"uid:{os.getuid()}"), ("/etc/lamina", "tls"),
]
fixtures = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fixtures")
members = "rm -f *.img; for d in {}; do truncate -s 24M $d.img; done; "
raid5 = members.format("a b c") + "lamina raid create -q --level=5 --raid-devices=3 --assume-clean a.img b.img c.img; "
raid1 = members.format("a b") + "lamina raid create -q -l 1 -n 2 --assume-clean a.img b.img; "
pool = "rm -f meta.img data.img; lamina pool create --metadata-size 4M --data-size 100G meta.img data.img >made; "
parts = "rm disk.qcow2; lamina create disk.qcow2 2G; lamina part create disk.qcow2; "
marks = "lamina bitmap --add disk.qcow2 monday; lamina bitmap --add disk.qcow2 tuesday; cp disk.qcow2 copy.qcow2; "
server = ("lamina serve -f qcow2 --export disk --socket $PWD/s --control $PWD/{0} disk.qcow2 >served & "
          "until [ -S {0} ]; do sleep 0.05; done; ")
served_raid = raid1 + ("lamina serve --export disk --socket $PWD/s --control $PWD/run/lamina.ctl md:a.img,b.img >served & "
                       "until [ -S run/lamina.ctl ]; do sleep 0.05; done; ")
group = "rm -f *.img; truncate -s 100G {0}; lamina pv create {0} >made; lamina vg create vg0 {0} >>made; "
thin = group.format("disk0.img") + "lamina lv create --type thin-pool -n pool -L 20g disk0.img//vg0 >>made; "

sent = "cp disk.qcow2 copy.qcow2; lamina send -q --base disk.qcow2 -o tuesday.lms disk.qcow2"

# What comes before an example that holds the words; the first that fits counts.
before = [
    ("lamina bitmap --add disk.qcow2 monday", ""), ("lamina bitmap", marks),
    ("convert disk.img disk.qcow2", "rm disk.qcow2"), ("convert -p -c", "rm vm1.qcow2"), ("convert --hash", "rm disk.img"),
    ("receive full.lms", "lamina send -q -o full.lms disk.qcow2"),
    ("tuesday.lms copy.qcow2", sent), ("tuesday.lms tuesday.qcow2", sent), ("send disk.qcow2 |", ""),
    ("send --base thin:", pool + "lamina pool new thin:meta.img,data.img 1; lamina pool snap thin:meta.img,data.img 2 1"),
    ("disk.qcow2//@monday", "lamina snapshot -c monday disk.qcow2"),
    ("disk.qcow2//p2", parts + "lamina part add --size 64M disk.qcow2; lamina part add disk.qcow2; cp disk.img root.img"),
    ("create disk.qcow2 20G", "rm disk.qcow2"), ("create -b base.qcow2", "rm vm1.qcow2"), ("create disk0.img", ""),
    ("lamina top", server.format("server.ctl")),
    ("ctl run/vm.ctl speed", server.format("run/vm.ctl") + "lamina ctl run/vm.ctl mirror disk new/disk.qcow2 by-hand=on >job"),
    ("lamina ctl", server.format("run/vm.ctl")),
    ("vg create", "truncate -s 1G disk0.img disk1.img"), ("lv create -n home", thin), ("lv create -s", thin + "lamina lv create -n home -V 100g --thinpool pool disk0.img//vg0 >>made"),
    ("lv refresh", f"tar -xJf {fixtures}/lvm.tar.xz"),
    ("lv repair", f"tar -xJf {fixtures}/lvm.tar.xz; truncate -s 24M new.img; "
     "lamina vg extend lvm:pv3.img,pv5.img,pv6.img,pv7.img//vgr new.img >made"),
    ("--restoremissing", group.format("disk0.img disk1.img") + "truncate -s 1G disk2.img; lamina vg extend disk0.img//vg0 disk2.img >>made"),
    ("lv create -n fast", group.format("disk0.img disk1.img")), ("lv create", group.format("disk0.img")),
    ("lv extend", group.format("disk.img") + "lamina lv create -n root -L 10g disk.img//vg0 >>made"),
    ("vg0/home", group.format("disk0.img") + "lamina lv create -n home -L 10g disk0.img//vg0 >>made"),
    ("lamina lv ", group.format("disk0.img") + "lamina lv create -n root -L 10g disk0.img//vg0 >>made"),
    ("pv change", group.format("disk0.img")),
    ("pv remove", "rm disk.img; truncate -s 64M disk.img; lamina pv create disk.img >made"),
    ("pv list disk.img", group.format("disk.img")), ("vg extend", group.format("disk0.img") + "truncate -s 1G disk1.img"),
    ("lvm:disk0.img,disk1.img", group.format("disk0.img disk1.img")), ("lamina vg ", group.format("disk0.img")),
    ("pv create", "rm disk.img; truncate -s 64M disk.img"),
    ("part add", parts),
    ("map --output=json --start-offset", "rm overlay.qcow2; lamina create overlay.qcow2 4G"),
    ("pool create --block-size", raid1 + "lamina create meta.qcow2 4M"), ("pool create", ""),
    ("pool repair", pool + "truncate -s 4M fixed.img"), ("pool restore", pool + "lamina pool dump meta.img >pool.xml"),
    ("pool delta", pool + "lamina pool new thin:meta.img,data.img 1; lamina pool snap thin:meta.img,data.img 2 1"),
    ("pool metadata-size", ""),
    ("pool snap", pool + "lamina pool new thin:meta.img,data.img 1"), ("serve thin:", pool + "lamina pool new thin:meta.img,data.img 1"),
    ("pool rm", pool + "lamina pool new thin:meta.img,data.img 1"),
    ("lamina pool ", pool),
    ("raid create -l 1 -n 2 --bitmap", "rm a.qcow2; lamina create a.qcow2 24M; lamina create b.qcow2 24M"),
    ("--write-journal", members.format("a b c d fast")), ("raid create", members.format("a b c")),
    ("dir:disks", raid5 + "mkdir disks; mv ?.img disks"), ("dir:backups", raid5 + "mkdir backups; mv ?.img backups"),
    ("raid add", raid1 + "truncate -s 24M new.img"), ("raid scrub --repair", raid1),
    ("raid remove", raid5 + "lamina raid fail md:a.img,b.img,c.img c.img"),
    ("raid re-add", members.format("a b c") + "lamina raid create -q -l 1 -n 3 --bitmap=internal --assume-clean a.img b.img c.img; "
     "lamina raid fail -q md:a.img,b.img,c.img c.img"),
    ("raid replace", raid5 + "truncate -s 24M new.img"), ("raid watch --oneshot --control", served_raid), ("raid stop", served_raid),
    ("raid grow --raid", members.format("a b spare") + "lamina raid create -q -l 1 -n 2 -x 1 --assume-clean a.img b.img spare.img"),
    ("raid grow", members.format("a b c") + "lamina raid create -q -l 5 -n 3 --size=16M --assume-clean a.img b.img c.img"),
    ("lamina raid ", raid5),
    ("part delete", parts + "for i in 1 2; do lamina part add --size 64M disk.qcow2; done"), ("lamina part ", parts),
    ("tree nas/", raid5 + "mkdir nas; mv ?.img nas"),
    ("rebase -u", "mkdir moved; cp disk.img moved/base.raw"),
    ("resize --grow p2", parts + "lamina part add --size 64M disk.qcow2; lamina part add disk.qcow2"),
    ("resize --grow", parts + "lamina part add disk.qcow2; lamina resize disk.qcow2 +1G"),
    ("resize -f raw --shrink", "truncate -s 6G disk.img"),
    ("snapshot -c", ""), ("snapshot", "lamina snapshot -c monday disk.qcow2"),
    ("--dir srv/images", "mkdir -p srv/images; cp disk.qcow2 srv/images"), ("--clones", "mkdir -p srv/clones"),
    ("serve --port 0 --bind", "mkdir tls; (umask 77; echo host1:00112233445566778899aabbccddeeff >tls/keys.psk)"),
]

template = """
truncate -s 16M disk.img a.img x.img lv.img
mke2fs -q -t ext4 disk.img
lamina convert -q disk.img disk.qcow2
cp disk.qcow2 a.qcow2; cp disk.img b.img
cp disk.qcow2 base.qcow2; cp disk.qcow2 base2.qcow2; cp disk.qcow2 golden.qcow2
lamina convert -q disk.img disk.vdi; lamina convert -q disk.img disk.vmdk; cp disk.vdi b.vdi
for f in vm1 vm1-tuesday overlay; do lamina create -q -b base.qcow2 $f.qcow2; done
mkdir run new backup
"""


def examples():
    """(page, command) of every page of ours."""
    for page in subprocess.check_output([program, "help", "pages"], text=True).split():
        text = subprocess.check_output([program, "help", "man", page], text=True)
        shown = text.partition(".SH EXAMPLES")[2].partition("\n.SH ")[0]
        for line in shown.splitlines():
            command = re.split(r" {3,}", line.replace("\\-", "-").replace("\\e", "\\").strip())[0]
            if command.startswith(("lamina ", "qemu-")):
                yield page, command


def serves_until_told(command):
    return command.startswith(("lamina serve", "qemu-nbd")) and "--run" not in command and "--fork" not in command


def listens(folder, said):
    return "nbd" in open(said).read() or glob.glob(os.path.join(folder, "run/*.sock"))


def end_forked(folder):
    """Ends the servers that went to the background and left a pid file."""
    for path in glob.glob(os.path.join(folder, "run/*.pid")):
        os.kill(int(open(path).read()), signal.SIGTERM)


def run(command, folder):
    subprocess.run(["cp", "-a", "--sparse=always", "template", folder], check=True)
    for theirs, ours in elsewhere:
        command = command.replace(theirs, ours)
    first = next((setup for words, setup in before if words in command), "")
    script = f"set -e\n{first.rstrip('; ')}\n" + (f"exec {command}" if serves_until_told(command) else command)
    said = open(os.path.join(folder, ".said"), "w+")
    child = subprocess.Popen(["bash", "-c", script], cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT,
                             start_new_session=True)
    end = time.monotonic() + 60
    listening = False
    while child.poll() is None and time.monotonic() < end:
        if serves_until_told(command) and not listening and listens(folder, said.name):
            listening = True
            child.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    try:
        os.killpg(child.pid, signal.SIGKILL)  # servers that an example needed
    except ProcessLookupError:
        pass
    said.seek(0)
    words = said.read()
    good = child.wait() == 0 and (listening or not serves_until_told(command))
    end_forked(folder)
    shutil.rmtree(folder)
    return good, words


os.mkdir("template")
subprocess.run(["bash", "-ec", template], cwd="template", check=True)
done = set()
for number, (page, command) in enumerate(examples()):
    if command in done:
        continue
    done.add(command)
    good, words = run(command, f"example{number}")
    print(f"ok - {page}: {command}" if good else f"FAIL - {page}: {command}: {' '.join(words.split())[-300:]}", flush=True)
