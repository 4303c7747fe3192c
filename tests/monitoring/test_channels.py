"""A webhook and e-mail, before servers that take messages and servers that do not."""

import logging
import shutil
import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from fakenews.errors import ConfigError, MonitoringError
from fakenews.monitoring.channels import Email, Webhook
from fakenews.monitoring.messages import Message
from fakenews.monitoring.verdict import State, Verdict

# aiosmtpd's, of a server that is here to be unsafe.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

MESSAGE = Message(
    subject="fakenews: alarm: drift.text",
    text="ALARM\n- drift.text: moved by 3 \N{GREEK SMALL LETTER SIGMA}\n",
    content={"format": 1, "text": "alarm", "state": "alarm"},
)


@pytest.fixture
def verdict(make_verdict: Callable[..., Verdict]) -> Verdict:
    return make_verdict(0, a=State.ALARM)


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Of a server that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


# Webhook


def test_a_webhook_gets_json_and_the_token(
    receiver: Callable[[], Any], verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKENEWS_WEBHOOK_TOKEN", "t0ken")
    server = receiver()
    webhook = Webhook(url=server.address)
    webhook.tell(verdict, None)
    assert server.got == []
    webhook.tell(verdict, MESSAGE)
    assert server.got == [{"format": 1, "text": "alarm", "state": "alarm"}]
    (headers,) = server.headers
    assert headers["Authorization"] == "Bearer t0ken"
    assert headers["Content-Type"] == "application/json"


def test_a_webhook_is_asked_thrice(receiver: Callable[[], Any], verdict: Verdict) -> None:
    server = receiver()
    webhook = Webhook(url=server.address, pause=0.05)
    server.answers += [(503, {}), (500, {})]
    webhook.tell(verdict, MESSAGE)
    assert len(server.got) == 3
    server.answers += [(503, {})] * 3
    with pytest.raises(MonitoringError, match=r"^127\.0\.0\.1 answers with 503: "):
        webhook.tell(verdict, MESSAGE)
    assert len(server.got) == 6


def test_a_webhook_that_says_when_is_believed(
    receiver: Callable[[], Any], verdict: Verdict
) -> None:
    server = receiver()
    server.answers += [(429, {"Retry-After": "1"})]
    started = time.monotonic()
    Webhook(url=server.address, pause=0.01).tell(verdict, MESSAGE)
    assert len(server.got) == 2
    assert 1 <= time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((400, {}), "answers with 400: check the address, and what it wants"),
        ((401, {}), "refuses (401): check FAKENEWS_WEBHOOK_TOKEN and the address"),
        (
            (307, {"Location": "https://elsewhere.example/x?secret"}),
            "sends elsewhere to elsewhere.example (307): give that address",
        ),
        ((302, {"Location": "/x?secret"}), "sends elsewhere (302): give that address"),
    ],
)
def test_what_will_not_change_is_asked_once(
    answer: tuple[int, dict[str, str]],
    reason: str,
    receiver: Callable[[], Any],
    verdict: Verdict,
) -> None:
    server = receiver()
    server.answers.append(answer)
    with pytest.raises(MonitoringError) as caught:
        Webhook(url=server.address).tell(verdict, MESSAGE)
    assert str(caught.value) == f"127.0.0.1 {reason}"
    assert len(server.got) == 1


def test_a_webhook_that_hangs_is_given_up(
    receiver: Callable[[], Any], verdict: Verdict, silent_port: int
) -> None:
    server = receiver()
    server.hang = 60
    started = time.monotonic()
    for address in (server.address, f"http://127.0.0.1:{silent_port}"):
        with pytest.raises(
            MonitoringError, match=r"^127\.0\.0\.1 did not answer within 0\.2 s"
        ):
            Webhook(url=address, timeout=0.2, pause=0.01).tell(verdict, MESSAGE)
    assert len(server.got) == 3
    assert time.monotonic() - started < 5


def test_a_webhook_that_trickles_is_given_up(verdict: Verdict) -> None:
    code = (
        "import socket, time\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "print(server.getsockname()[1], flush=True)\n"
        "while True:\n"
        "    found, _ = server.accept()\n"
        "    try:\n"
        "        for letter in 'HTTP/1.1 200 OK\\r\\nX: ' + 600 * 'x':\n"
        "            found.sendall(letter.encode())\n"
        "            time.sleep(0.05)\n"
        "    except OSError:\n"
        "        pass\n"
    )
    with subprocess.Popen(
        [shutil.which("python3") or "python3", "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = f"http://127.0.0.1:{process.stdout.readline().strip()}"
        started = time.monotonic()
        with pytest.raises(MonitoringError, match="did not answer within"):
            Webhook(url=address, timeout=0.5, pause=0.01).tell(verdict, MESSAGE)
        assert time.monotonic() - started < 5
        process.kill()


def test_a_webhook_that_is_not_there(verdict: Verdict, closed_port: int) -> None:
    webhook = Webhook(url=f"http://localhost:{closed_port}/secret", pause=0.01)
    with pytest.raises(MonitoringError) as caught:
        webhook.tell(verdict, MESSAGE)
    assert str(caught.value).startswith("localhost cannot be reached (")
    assert "secret" not in str(caught.value)


def test_an_address_that_is_a_secret_is_in_no_log(
    receiver: Callable[[], Any],
    verdict: Verdict,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = receiver()
    monkeypatch.setenv("FAKENEWS_WEBHOOK_URL", f"{server.address}/T0P/secret")
    logging.getLogger("httpx").setLevel(logging.NOTSET)
    with caplog.at_level(logging.INFO):
        Webhook(url=None).tell(verdict, MESSAGE)
    assert len(server.got) == 1
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (
            None,
            "the webhook has no address: give its url, or the variable FAKENEWS_WEBHOOK_URL",
        ),
        ("ftp://example.org/s3cret", "the webhook's address is none: write https://HOST/..."),
        ("https://", "the webhook's address is none"),
        ("https://example.org:port/s3cret", "the webhook's address cannot be read"),
        ("https://exam\nple.org/s3cret", "the webhook's address "),
        ("https://me:s3cret@example.org/", "the webhook's address at example.org holds a pass"),
        ("http://example.org/s3cret", "the webhook at example.org would be told in the open"),
        ("http://10.0.0.1/s3cret", "the webhook at 10.0.0.1 would be told in the open"),
    ],
)
def test_an_address_that_cannot_be_used(
    url: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAKENEWS_WEBHOOK_URL", raising=False)
    with pytest.raises(ConfigError) as caught:
        Webhook(url=url)
    assert str(caught.value).startswith(reason)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost/", "https://x.example/"]
)
def test_addresses_that_can_be_used(url: str) -> None:
    Webhook(url=url)
    Webhook(url="http://x.example/", allow_http=True)


def test_a_token_that_cannot_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKENEWS_WEBHOOK_TOKEN", "a\r\nX-Other: b")
    with pytest.raises(ConfigError, match=r"^FAKENEWS_WEBHOOK_TOKEN has characters"):
        Webhook(url="https://x.example/")


# E-mail


class Mailbox:
    """What a mail server takes; it refuses who is called nobody."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.users: list[str] = []

    async def handle_RCPT(  # noqa: N802 aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        del server, session, options
        if address.startswith("nobody"):
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 as above
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        del server, session
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def authenticate(self, *arguments: Any) -> AuthResult:
        login = arguments[-1]
        assert isinstance(login, LoginPassword)
        self.users.append(login.login.decode())
        return AuthResult(success=login.password == b"s3cret", handled=False)


MailServer = tuple[Mailbox, int]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, found = folder / "key", folder / "certificate"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", key, "-out", found, "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return key, found


@pytest.fixture
def mail_server(certificate: tuple[Path, Path]) -> Iterator[Callable[..., MailServer]]:
    started = []

    def start(**options: Any) -> MailServer:
        mailbox = Mailbox()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate[1], certificate[0])
        implicit = {"ssl_context": context} if options.pop("implicit", False) else {}
        tls = {} if implicit or options.pop("plain", False) else {"tls_context": context}
        controller = Controller(
            mailbox,
            hostname="127.0.0.1",
            port=_free_port(),
            authenticator=mailbox.authenticate,
            **implicit,
            **tls,
            **options,
        )
        controller.start()
        started.append(controller)
        return mailbox, controller.port

    yield start
    for controller in started:
        controller.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def trusted(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[1]))


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKENEWS_SMTP_PASSWORD", "s3cret")


def email(port: int, **options: Any) -> Email:
    usual = {
        "host": "127.0.0.1",
        "sender": "monitor@example.org",
        "to": ["a@example.org", "b@example.org"],
        "timeout": 3,
    }
    return Email(port=port, **usual | options)


@pytest.mark.usefixtures("trusted", "password")
@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_arrives_safely(
    security: str, mail_server: Callable[..., MailServer], verdict: Verdict
) -> None:
    mailbox, port = mail_server(
        auth_required=True, implicit=security == "tls", auth_require_tls=security != "tls"
    )
    channel = email(port, security=security, user="monitor")
    channel.tell(verdict, None)
    assert mailbox.mails == []
    channel.tell(verdict, MESSAGE)
    (mail,) = mailbox.mails
    assert mailbox.users == ["monitor"]
    assert mail["Subject"] == MESSAGE.subject
    assert mail["To"] == "a@example.org, b@example.org"
    assert mail["Date"].datetime == verdict.checked_at
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().replace("\r\n", "\n") == MESSAGE.text


@pytest.mark.usefixtures("password")
def test_a_password_goes_to_no_server_that_cannot_prove_itself(
    mail_server: Callable[..., MailServer], verdict: Verdict
) -> None:
    mailbox, port = mail_server()
    with pytest.raises(MonitoringError, match="has no safe connection for us"):
        email(port, user="monitor").tell(verdict, MESSAGE)
    _, port = mail_server(plain=True, auth_require_tls=False)
    with pytest.raises(MonitoringError, match="does not offer STARTTLS: change security"):
        email(port, user="monitor").tell(verdict, MESSAGE)
    assert mailbox.users == []


@pytest.mark.usefixtures("trusted")
def test_a_wrong_password(
    mail_server: Callable[..., MailServer],
    verdict: Verdict,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKENEWS_SMTP_PASSWORD", "wr0ng")
    mailbox, port = mail_server()
    with pytest.raises(MonitoringError) as caught:
        email(port, user="monitor").tell(verdict, MESSAGE)
    assert str(caught.value) == (
        f"127.0.0.1:{port} does not let in monitor with the password of FAKENEWS_SMTP_PASSWORD"
    )
    assert mailbox.mails == []


def test_a_server_that_refuses(
    mail_server: Callable[..., MailServer],
    verdict: Verdict,
    caplog: pytest.LogCaptureFixture,
) -> None:
    mailbox, port = mail_server(plain=True, auth_require_tls=False)
    with pytest.raises(MonitoringError, match=r"takes no mail for nobody@example\.org"):
        email(port, security="none", to=["nobody@example.org"]).tell(verdict, MESSAGE)
    # Who gets it must not get it again because another did not.
    email(port, security="none", to=["nobody@example.org", "a@example.org"]).tell(
        verdict, MESSAGE
    )
    assert len(mailbox.mails) == 1
    assert "takes no mail for nobody@example.org" in caplog.text


def test_a_server_that_lets_in_nobody_unknown(
    mail_server: Callable[..., MailServer], verdict: Verdict
) -> None:
    _, port = mail_server(plain=True, auth_require_tls=False, auth_required=True)
    with pytest.raises(MonitoringError, match=r"takes no mail from monitor@example\.org"):
        email(port, security="none").tell(verdict, MESSAGE)


def test_a_server_that_is_dead_or_silent_or_something_else(
    verdict: Verdict, closed_port: int, silent_port: int, receiver: Callable[[], Any]
) -> None:
    with pytest.raises(MonitoringError, match=r"did not take the mail \(Connection refused\)$"):
        email(closed_port).tell(verdict, MESSAGE)
    for security in ("starttls", "tls"):
        with pytest.raises(MonitoringError, match=r"did not answer within 0\.2 s"):
            email(silent_port, timeout=0.2, security=security).tell(verdict, MESSAGE)
    web = int(receiver().address.rpartition(":")[2].partition("/")[0])
    with pytest.raises(MonitoringError, match="no safe connection"):
        email(web, security="tls").tell(verdict, MESSAGE)


def test_what_is_no_mail_address_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAKENEWS_SMTP_PASSWORD", raising=False)
    with pytest.raises(ConfigError) as caught:
        email(25, sender="a b@c", to=["x@y\nBcc: z@y", "d"], user="me", host="mail.example")
    assert caught.value.faults == [
        "'a b@c' is no e-mail address",
        "'x@y\\nBcc: z@y' is no e-mail address",
        "'d' is no e-mail address",
        "the mail server's user me has no password: set FAKENEWS_SMTP_PASSWORD",
    ]
    with pytest.raises(ConfigError, match="goes to nobody"):
        email(25, to=[])


@pytest.mark.usefixtures("password")
def test_a_password_does_not_travel_in_the_open() -> None:
    with pytest.raises(ConfigError, match=r"to mail\.example in the open"):
        email(25, host="mail.example", user="me", security="none")
    assert isinstance(email(25, user="me", security="none"), Email)
    assert issubclass(smtplib.SMTPException, OSError)
