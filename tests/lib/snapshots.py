# SPDX-License-Identifier: BSD-3-Clause
# A random life of one qcow2 image with snapshots, lived by lamina and by qemu-img in turn; a list of bytes is the
# model. After every step qemu-img check is clean, and now and then the disk and every snapshot are read by both.
#   snapshots.py LAMINA SEED STEPS OPTIONS
import os, random, subprocess, sys, time

lamina, seed, steps, options = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
faces = os.path.join(os.path.dirname(lamina), 'compat')
r = random.Random(f'{seed} {options}')
SIZE = 1536 * 1024
IMG = f'life{seed}.qcow2'
history = []


def run(*words, **more):
    p = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    if p.returncode:
        sys.exit(f'seed {seed} {options}: {" ".join(words)}: rc {p.returncode}: {p.stdout.decode()[-400:]}\n  after '
                 + ', '.join(history[-12:]))
    return p.stdout


def read(by, snapshot):
    for name in ('out.raw',):
        if os.path.exists(name):
            os.remove(name)
    if by == 'theirs':
        run('qemu-img', 'convert', '-f', 'qcow2', '-O', 'raw', *(['-l', f'snapshot.name={snapshot}'] if snapshot else []),
            IMG, 'out.raw')
    elif snapshot and r.random() < 0.5:
        run(lamina, 'convert', '-q', '-f', 'qcow2', '-l', snapshot, '-O', 'raw', IMG, 'out.raw')
    else:
        run(lamina, 'convert', '-q', '-O', 'raw', IMG + (f'//@{snapshot}' if snapshot else ''), 'out.raw')
    with open('out.raw', 'rb') as f:
        return f.read()


def look(all_of_it):
    run('qemu-img', 'check', '-q', '-f', 'qcow2', IMG)
    run(lamina, 'check', '-q', '-f', 'qcow2', IMG)
    if not all_of_it:
        return
    for name, want in [(None, disk)] + list(kept.items()):
        for by in ('ours', 'theirs'):
            got = read(by, name)[:len(want)]
            if got != bytes(want):
                at = next(i for i in range(len(want)) if got[i:i + 1] != bytes(want[i:i + 1]))
                sys.exit(f'seed {seed} {options}: {by} reads {name or "the disk"} wrong at {at}\n  after '
                         + ', '.join(history[-12:]))


def write(by):
    words = []
    for _ in range(r.randrange(1, 8)):
        n = r.choice([512, 4096, 65536, 100 * 512]) * r.randrange(1, 4)
        at = r.randrange(0, (len(disk) - n) // 512) * 512
        what = r.random()
        if what < 0.6:
            value = r.randrange(1, 256)
            words += ['-c', f'write -q -P {value} {at} {n}']
            disk[at:at + n] = bytes([value]) * n
        else:
            words += ['-c', f'write -q -z {"-u " if what < 0.8 else ""}{at} {n}']
            disk[at:at + n] = bytes(n)
    if by == 'theirs':
        run('qemu-io', '-f', 'qcow2', *words, IMG)
        return
    server = subprocess.Popen([os.path.join(faces, 'qemu-nbd'), '-f', 'qcow2', '-k', os.path.abspath('sock'), IMG])
    while not os.path.exists('sock') and server.poll() is None:
        time.sleep(0.005)
    run('qemu-io', '-f', 'raw', *words, f'nbd+unix:///?socket={os.path.abspath("sock")}')
    if server.wait(timeout=30):
        sys.exit('the server failed')
    if os.path.exists('sock'):
        os.remove('sock')


def tool(by):
    return ['qemu-img', 'snapshot'] if by == 'theirs' else \
        r.choice([[lamina, 'snapshot', '-q'], [os.path.join(faces, 'qemu-img'), 'snapshot']])


disk = bytearray(SIZE)
for i in range(0, SIZE // 2, 4096):
    disk[i:i + 4096] = bytes([1 + i // 4096 % 200]) * 4096
with open('start.raw', 'wb') as f:
    f.write(disk)
if os.path.exists(IMG):
    os.remove(IMG)
run('qemu-img', 'convert', *(['-c'] if seed % 2 else []), '-f', 'raw', '-O', 'qcow2', '-o', options, 'start.raw', IMG)
kept, number = {}, 0
for step in range(steps):
    by = r.choice(['ours', 'theirs'])
    act = r.choice(['write', 'write', 'write', 'create', 'apply', 'delete', 'create'])
    if act in ('apply', 'delete') and not kept:
        act = 'create'
    if act == 'create' and len(kept) > 5:
        act = 'delete'
    name = r.choice(list(kept)) if act in ('apply', 'delete') else ''
    if act == 'create':
        number += 1
        name = f's {number}'
    history.append(f'{by} {act} {name}')
    if act == 'write':
        write(by)
    elif act == 'create':
        run(*tool(by), '-c', name, IMG)
        kept[name] = bytes(disk)
    elif act == 'apply':
        run(*tool(by), '-a', name, IMG)
        disk = bytearray(kept[name])
    else:
        run(*tool(by), '-d', name, IMG)
        del kept[name]
    look(step % 5 == 4 or step == steps - 1)
os.remove(IMG)
