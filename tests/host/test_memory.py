import os
import resource
from pathlib import Path

import jax
import pytest

from sofnet_jax.host.memory import describe_peaks, read_peaks


def test_peak_of_the_host_lies_between_what_is_held_now_and_what_the_kernel_has_seen():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    now = pages * os.sysconf("SC_PAGE_SIZE")
    # The kernel's own count begins before this program took the process over.
    most = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 0.99 * now < read_peaks()["host"] * 2**30 < 1.01 * most


class Device:
    def __init__(self, stats):
        self._stats = stats

    def memory_stats(self):
        return self._stats


def test_peak_of_the_devices_is_that_of_the_fullest(monkeypatch):
    stats = [{"peak_bytes_in_use": gib * 2**30, "bytes_in_use": 2**40} for gib in (3, 5, 4)]
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(s) for s in stats])
    assert read_peaks()["device"] == pytest.approx(5)
    assert describe_peaks().endswith("GiB on the host, 5.00 GiB on the device")


@pytest.mark.parametrize("stats", [None, {}, {"bytes_in_use": 1}])
def test_device_that_does_not_tell_is_left_out(monkeypatch, stats):
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(stats)])
    assert list(read_peaks()) == ["host"]
