"""What of the gateway can be configured; `conf/serve/` has the values and says why."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from fakenews.bounds import Count, NonNegative, Positive, PositiveCount, Share

Port = Annotated[int, Ge(0), Le(65535)]
"""0 takes a free one."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The largest that a request may be.

    Attributes:
        body_bytes: Of a request that is no table.
        body_seconds: For a body to arrive.
        items: Texts of a request.
        characters: Of a text, and of a value of a column.
        columns: Values beside the text.
        depth: Of nested JSON.
        table_bytes: Of an uploaded table.
    """

    body_bytes: PositiveCount
    body_seconds: Positive
    items: PositiveCount
    characters: PositiveCount
    columns: Count
    depth: PositiveCount
    table_bytes: PositiveCount


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """TorchServe, as the gateway asks it.

    Attributes:
        address: Of its inference API.
        pause: Seconds before what failed is sent again; doubles, up to 20 times as long.
        patience: Share of a request's time after which it may be lost, and is sent again.
        explain_in_flight: Explanations asked for at once.
        explain_queue: Of those that wait for that.
    """

    address: str
    pause: Positive
    patience: Share
    explain_in_flight: PositiveCount
    explain_queue: Count


@dataclass(frozen=True, kw_only=True)
class Batching:
    """How requests share batches.

    Attributes:
        batch_items: Most texts of a batch.
        batch_characters: Most characters of a batch, though always one text.
        in_flight: Batches under way at once, for each worker of the version.
        gather: Share of a batch's time for which the next waits for those who were answered.
        queue_items: Texts that may wait for one version.
    """

    batch_items: PositiveCount
    batch_characters: PositiveCount
    in_flight: PositiveCount
    gather: Share
    queue_items: PositiveCount


@dataclass(frozen=True, kw_only=True)
class Canary:
    """When a canary is given up.

    Attributes:
        by: `text` asks a text of the same version each time; `random` draws.
        window: Seconds looked back.
        min_requests: Fewer say nothing.
        error_excess: By how much its share of failed requests may exceed the champion's.
        latency_ratio: How many times the champion's 95th percentile of latency it may take.
        latency_floor: Seconds of latency that are never too much.
        patience: Share of a request's time after which the champion is asked instead.
    """

    by: Literal["text", "random"]
    window: Positive
    min_requests: PositiveCount
    error_excess: Share
    latency_ratio: Positive
    latency_floor: NonNegative
    patience: Share


@dataclass(frozen=True, kw_only=True)
class Log:
    """The prediction log.

    Attributes:
        enabled: Whether predictions are logged.
        text: Whether their texts are.
        features: Whether what the model counts of them is: tokens and tabular features.
        embeddings: Whether what the model makes of them is.
        keep_days: Days after which predictions and feedback are removed; None never.
        fsync: Whether a line must have reached the disk before its request is answered:
            without, one that the machine's failure loses was answered; that of the process
            never loses any.
        wait: Seconds a request waits for its line at most; then it is answered as not logged.
        segment_bytes: Size at which a file of lines becomes Parquet.
        segment_seconds: Age at which it does.
        recent: Ids remembered for feedback; older ones are looked up in the log.
    """

    enabled: bool
    text: bool
    features: bool
    embeddings: bool
    keep_days: PositiveCount | None
    fsync: bool
    wait: Positive
    segment_bytes: PositiveCount
    segment_seconds: Positive
    recent: PositiveCount


@dataclass(frozen=True, kw_only=True)
class Tables:
    """Uploaded tables.

    Attributes:
        text: Names of the column of the text, by preference.
        columns: Columns beside it that the model reads.
        chunk_rows: Rows predicted at a time.
        concurrent: Tables at once.
    """

    text: list[str]
    columns: list[str]
    chunk_rows: PositiveCount
    concurrent: PositiveCount


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask, and how often.

    Attributes:
        keys_file: File with an API key a line, NAME:KEY; None asks for none. Those of the
            environment variable FAKENEWS_API_KEYS, between commas, are added.
        open_page: Whether the page needs no key.
        open_metrics: Whether the metrics need no key.
        rate: Requests that a key, or an address without one, may send, those of the page
            included, as in `600/minute`; None for any number.
        trusted_hosts: Names by which the server may be called; `*` for any.
        proxies: Addresses whose X-Forwarded-For is believed.
    """

    keys_file: str | None
    open_page: bool
    open_metrics: bool
    rate: str | None
    trusted_hosts: list[str]
    proxies: list[str]


@dataclass(frozen=True, kw_only=True)
class Page:
    """The page on which people ask.

    Attributes:
        enabled: Whether there is one.
        title: Of it.
        lead: A sentence under that.
        label: Of the box for the text.
        examples: Texts that can be tried.
        report: Address of the latest monitoring report; None where there is none.
        report_file: Or its file, which everybody may read who may see the page.
        concurrent: Answers under way at once.
        waiting: Questions that may wait for that; more are told to come again.
        keep: Seconds for which a predicted table can be fetched.
    """

    enabled: bool
    title: str
    lead: str
    label: str
    examples: list[str]
    report: str | None
    report_file: str | None
    concurrent: PositiveCount
    waiting: PositiveCount
    keep: Positive


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of the whole gateway.

    Attributes:
        host: Address to listen on.
        port: Port to listen on.
        dir: Folder of the deployment: `state.json`, the logs, TorchServe's keys.
        deadline: Seconds for a request, end to end.
        drain: Seconds for requests under way when the gateway is told to stop.
        drain_delay: Seconds before that in which it says that it is not ready, and answers.
        cache_size: Answers remembered; 0 for none.
        shadow_in_flight: Requests copied to a shadow at once; more are not copied.
        bounds: Of requests.
        upstream: TorchServe.
        batching: How requests share batches.
        canary: When a canary is given up.
        log: The prediction log.
        tables: Uploaded tables.
        access: Who may ask.
        page: On which people ask.
    """

    host: str
    port: Port
    dir: str
    deadline: Positive
    drain: Positive
    drain_delay: NonNegative
    cache_size: Count
    shadow_in_flight: PositiveCount
    bounds: Bounds
    upstream: Upstream
    batching: Batching
    canary: Canary
    log: Log
    tables: Tables
    access: Access
    page: Page
