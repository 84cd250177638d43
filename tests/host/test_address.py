"""No password of an address is shown."""

import pytest

from sofnet_jax.data.video.container import VideoError
from sofnet_jax.host.address import mask_passwords
from sofnet_jax.host.errors import LostError, UserError


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@host:554/1", "rtsp://user:***@host:554/1"),
        ("rtsp://:secret@host/1", "rtsp://:***@host/1"),
        ("rtsp://user:p@ss/w:rd@host/1", "rtsp://user:***@host/1"),  # not escaped as it should be
        ("rtsp://user:a secret@host/1", "rtsp://user:***@host/1"),
        ("rtsp://user:a@ secret@[::1]:5/1", "rtsp://user:***@[::1]:5/1"),
        ("rtsp:/user:secret@host/1", "rtsp:/user:***@host/1"),  # mistyped
        ("rtsp://user:12345@host/1", "rtsp://user:***@host/1"),
        ("http://h/live?user=a&pwd=secret&x=1", "http://h/live?user=a&pwd=***&x=1"),
        ("rtsp://h/user=a&password=secret&channel=1", "rtsp://h/user=a&password=***&channel=1"),
        ("srt://h:9000?passphrase=secret", "srt://h:9000?passphrase=***"),
        ("https://h/a?X-Signature=f00&a_token=b", "https://h/a?X-Signature=***&a_token=***"),
        ("rtsp://u:a@h: no, http://u:b@h: yes", "rtsp://u:***@h: no, http://u:***@h: yes"),
    ],
)  # fmt: skip
def test_passwords_are_masked(text, shown):
    assert mask_passwords(text) == shown
    for error in (VideoError, UserError, LostError):
        assert str(error(f"{text}: it failed")) == f"{shown}: it failed"


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://host:554/live@2x/1",
        "http://host: not a video stream (asked by user@host)",
        "http://host:80 is not that of user@host",
        "http://host:8080/a.ts?channel=1&start=0:30",
        "user@host:/videos/a.mp4",
        "/videos/a:b@c/password=1.mp4",
        "C:/videos/a@b.mp4",
        "hub:owner/name",
        "no such file or folder; give a video, a folder, a pattern or an address",
    ],
)
def test_the_rest_stays_as_it_is(text):
    assert mask_passwords(text) == text
