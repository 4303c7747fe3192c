"""Ways to tell people of alerts: a webhook and e-mail; those of AWS are in `aws`.

What is secret comes from the environment, and is in no message and no error.
"""

import asyncio
import ipaddress
import logging
import os
import re
import smtplib
import ssl
from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Annotated, Literal
from urllib.parse import urlsplit

import httpx
from annotated_types import Ge, Le

from fakenews.bounds import Positive
from fakenews.errors import ConfigError, MonitoringError
from fakenews.monitoring.messages import Message
from fakenews.monitoring.verdict import Verdict

log = logging.getLogger(__name__)

WEBHOOK_URL = "FAKENEWS_WEBHOOK_URL"
"""Environment variable with the address of the webhook, where that is a secret itself."""
WEBHOOK_TOKEN = "FAKENEWS_WEBHOOK_TOKEN"  # noqa: S105 a name
"""Environment variable with the bearer token for the webhook, if it wants one."""
SMTP_PASSWORD = "FAKENEWS_SMTP_PASSWORD"  # noqa: S105 a name
"""Environment variable with the password of the mail server's user."""

Port = Annotated[int, Ge(1), Le(65535)]

_ATTEMPTS = 3
# Seconds before the second attempt; before the third twice as long. A server that says how
# long is believed up to a limit.
_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_AGAIN = {408, 425, 429, 500, 502, 503, 504}

_ADDRESS = re.compile(r"[^\s@,;:<>\"()\[\]\\]+@[^\s@,;:<>\"()\[\]\\]+")


class Webhook:
    """Sends a message as JSON to an address.

    Args:
        url: `https://...`; `http://` to this machine only, unless `allow_http`. None: that of
            the environment variable `FAKENEWS_WEBHOOK_URL`.
        timeout: Seconds for each of three attempts.
        allow_http: Whether messages may travel in the open.
        pause: Seconds before the second attempt, doubled before the third.

    Raises:
        ConfigError: There is no address, or none that can be used.
    """

    def __init__(
        self,
        *,
        url: str | None,
        timeout: Positive = 10,
        allow_http: bool = False,
        pause: Positive = _PAUSE,
    ) -> None:
        given = url if url is not None else os.environ.get(WEBHOOK_URL, "").strip()
        if not given:
            raise ConfigError(
                f"the webhook has no address: give its url, or the variable {WEBHOOK_URL}"
            )
        self._url, self._host = given, _checked_host(given, allow_http=allow_http)
        self._timeout = timeout
        self._pause = pause
        # It logs addresses, and that of a webhook may be a secret.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        token = os.environ.get(WEBHOOK_TOKEN, "").strip()
        if not token.isprintable() or not token.isascii() or " " in token:
            raise ConfigError(f"{WEBHOOK_TOKEN} has characters that a token cannot have")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def tell(self, verdict: Verdict, message: Message | None) -> None:
        """Send what is new, if anything is.

        Raises:
            MonitoringError: It did not take it, also when asked again.
        """
        del verdict
        if message is not None:
            asyncio.run(self._send(message))

    async def _send(self, message: Message) -> None:
        # Not through a proxy to this machine itself.
        client = httpx.AsyncClient(
            headers=self._headers, timeout=self._timeout, trust_env=not _loopback(self._host)
        )
        pause = self._pause
        async with client:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    _judge(await self._post(client, message))
                except _Fault as fault:
                    if fault.wait is None or attempt == _ATTEMPTS:
                        raise MonitoringError(f"{self._host} {fault}") from None
                    await asyncio.sleep(max(pause, min(fault.wait, _LONGEST_PAUSE)))
                    pause *= 2
                else:
                    return

    async def _post(self, client: httpx.AsyncClient, message: Message) -> httpx.Response:
        """Send it once, and read no more than the head of the answer."""
        try:
            # The client's own limit is one of silence: a server that trickles meets this.
            async with (
                asyncio.timeout(self._timeout),
                client.stream("POST", self._url, json=dict(message.content)) as answer,
            ):
                return answer
        except (TimeoutError, httpx.TimeoutException):
            raise _Fault(f"did not answer within {self._timeout:g} s", wait=0) from None
        except (httpx.ConnectError, httpx.ProxyError) as error:
            raise _Fault(f"cannot be reached ({_reason(error)})", wait=0) from None
        except httpx.HTTPError as error:
            raise _Fault(f"broke off ({type(error).__name__})", wait=0) from None


class _Fault(Exception):
    """What a webhook did, and the least seconds to wait if that may pass."""

    def __init__(self, message: str, *, wait: float | None) -> None:
        self.wait = wait
        super().__init__(message)


def _judge(answer: httpx.Response) -> None:
    """Refuse an answer that is none of success."""
    status = answer.status_code
    if answer.is_success:
        return
    if answer.has_redirect_location:
        # To follow it would take the token along.
        host = urlsplit(answer.headers["location"]).hostname
        where = f" to {host}" if host else ""
        raise _Fault(f"sends elsewhere{where} ({status}): give that address", wait=None)
    if status in (401, 403):
        raise _Fault(f"refuses ({status}): check {WEBHOOK_TOKEN} and the address", wait=None)
    wait = _seconds(answer.headers.get("retry-after")) if status in _AGAIN else None
    raise _Fault(f"answers with {status}: check the address, and what it wants", wait=wait)


class Email:
    """Sends a message by a mail server.

    Args:
        host: Of the server.
        port: Of the server: mostly 587 with `starttls`, 465 with `tls`.
        sender: Address that it comes from.
        to: Addresses that it goes to.
        security: `starttls`, `tls` from the first byte, or `none`.
        user: Name to log in with, and the password of the environment variable
            `FAKENEWS_SMTP_PASSWORD`; None to send without.
        timeout: Seconds for each answer of the server.

    Raises:
        ConfigError: An address is none, or a password is missing or would travel in the open.
    """

    def __init__(
        self,
        *,
        host: str,
        sender: str,
        to: Sequence[str],
        port: Port = 587,
        security: Literal["starttls", "tls", "none"] = "starttls",
        user: str | None = None,
        timeout: Positive = 10,
    ) -> None:
        faults = [f"{one!r} is no e-mail address" for one in (sender, *to) if not _mail(one)]
        if not to:
            faults.append("the e-mail goes to nobody: give addresses in to")
        self._password = os.environ.get(SMTP_PASSWORD, "")
        if user is not None and not self._password:
            faults.append(f"the mail server's user {user} has no password: set {SMTP_PASSWORD}")
        if user is not None and security == "none" and not _loopback(host):
            faults.append(
                f"the password would travel to {host} in the open: give security=starttls, or "
                "tls"
            )
        if faults:
            raise ConfigError(faults)
        self._host, self._port = host, port
        self._sender, self._to = sender, list(to)
        self._security = security
        self._user = user
        self._timeout = timeout

    def tell(self, verdict: Verdict, message: Message | None) -> None:
        """Send what is new, if anything is.

        Raises:
            MonitoringError: The server cannot be reached, or does not take it.
        """
        if message is None:
            return
        mail = EmailMessage()
        mail["Subject"] = message.subject
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._to)
        mail["Date"] = format_datetime(verdict.checked_at)
        mail["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2])
        # So that no answering machine answers.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        where = f"{self._host}:{self._port}"
        try:
            with self._connected() as server:
                refused = server.send_message(mail)
        except (OSError, smtplib.SMTPException) as error:
            raise MonitoringError(f"{where} {self._explain(error)}") from None
        if refused:
            # The others have it: sent again, they would have it twice.
            log.warning("%s takes no mail for %s", where, _list(refused))

    def _explain(self, error: Exception) -> str:
        """What the server did, and what to do about it."""
        reason = _reason(error)
        found = f"did not take the mail ({reason})"
        match error:
            case smtplib.SMTPAuthenticationError():
                found = f"does not let in {self._user} with the password of {SMTP_PASSWORD}"
            case smtplib.SMTPNotSupportedError():
                lacks = "STARTTLS" if self._security == "starttls" else "a login"
                found = f"does not offer {lacks}: change security or user"
            case smtplib.SMTPRecipientsRefused():
                found = f"takes no mail for {_list(error.recipients)}"
            case smtplib.SMTPSenderRefused():
                found = f"takes no mail from {self._sender}"
            case ssl.SSLError():
                found = f"has no safe connection for us ({reason})"
            case _ if "timed out" in reason:
                found = f"did not answer within {self._timeout:g} s"
        return found

    def _connected(self) -> smtplib.SMTP:
        context = ssl.create_default_context()
        if self._security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                self._host, self._port, timeout=self._timeout, context=context
            )
        else:
            server = smtplib.SMTP(self._host, self._port, timeout=self._timeout)
        try:
            if self._security == "starttls":
                server.starttls(context=context)
            if self._user is not None:
                server.login(self._user, self._password)
        except BaseException:
            server.close()
            raise
        return server


def _checked_host(url: str, *, allow_http: bool) -> str:
    """The host of a webhook's address. What else is in it may be secret."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL):
        raise ConfigError("the webhook's address cannot be read: write https://...") from None
    if parts.scheme not in ("http", "https") or not host or not url.isprintable():
        raise ConfigError("the webhook's address is none: write https://HOST/...")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"the webhook's address at {host} holds a password: give a token in "
            f"{WEBHOOK_TOKEN}, or the whole address in {WEBHOOK_URL}"
        )
    if parts.scheme == "http" and not allow_http and not _loopback(host):
        raise ConfigError(
            f"the webhook at {host} would be told in the open: give https://, or "
            "allow_http=true"
        )
    return host


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _seconds(retry_after: str | None) -> float:
    """What a server asks to wait; 0 where it asks nothing, or gives a date."""
    try:
        return max(float(retry_after or 0), 0)
    except ValueError:
        return 0


def _mail(address: str) -> bool:
    return _ADDRESS.fullmatch(address) is not None and address.isascii()


def _list(addresses: Iterable[str]) -> str:
    return ", ".join(sorted(addresses))


def _reason(error: BaseException) -> str:
    """The first line of an error, cut."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
