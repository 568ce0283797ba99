"""A wire between two network namespaces: what either kernel sends goes through here.

Linux has netem for this, but not every kernel is built with it; TUN devices are everywhere. Argument: the devices, each
as namespace:device:address. On standard input, a line of JSON for each change of weather: of a thousand packets how many
are lost and how many are overtaken, and how long one takes, in ms.
"""

import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
LARGEST = 65_535
# How much later a packet comes that others overtake.
LATE_S = 0.03

def attach(place):
    """Opens one end: a device that is then moved into its namespace, and whose packets still come here."""
    namespace, device, address = place.split(":")
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    for command in (
        f"ip link set {device} netns {namespace}",
        f"ip -n {namespace} link set lo up",
        f"ip -n {namespace} addr add {address} dev {device}",
        f"ip -n {namespace} link set {device} up txqueuelen 1000",
    ):
        subprocess.run(command.split(), check=True)
    return end

def main():
    ends = [attach(place) for place in sys.argv[1:]]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    weather = {"lost": 0, "overtaken": 0, "delayMs": 0}
    dice = random.Random(1)
    under_way = []
    count = 0
    print("ready", flush=True)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select([*ends, sys.stdin], [], [], wait)
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            weather = {**weather, **json.loads(line)}
            print("changed", flush=True)
        for end in ends:
            while end in readable:
                try:
                    packet = os.read(end, LARGEST)
                except BlockingIOError:
                    break
                if dice.randrange(1000) < weather["lost"]:
                    continue
                late = LATE_S if dice.randrange(1000) < weather["overtaken"] else 0
                count += 1
                due = time.monotonic() + weather["delayMs"] / 1000 + late
                heapq.heappush(under_way, (due, count, other[end], packet))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, end, packet = heapq.heappop(under_way)
            try:
                os.write(end, packet)
            except OSError:
                # A device that is down, or whose queue is full, loses what comes.
                pass

main()
