"""Reading many small objects with little work for each, so that a training is kept fed."""

import io
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

_SUCCESS = (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT)
_REGION = re.compile(r"Credential=[^/]+/\d{8}/([^/]+)/s3/aws4_request")
_HEADERS = {"Range": "Range", "IfMatch": "If-Match"}
_METADATA = "x-amz-meta-"


@dataclass(frozen=True)
class _Address:
    """Where a bucket's objects are, up to the key, and the region that requests are signed for."""

    url: str
    region: str


class QuickGet:
    """``client.get_object`` for about half of its processor time; threads may share it.

    For each request boto3 finds the endpoint, checks the parameters and models the answer anew.
    Here the first request to a bucket is boto3's own, and tells where it went. Those after it go
    there, signed and sent by the same parts of botocore. An answer that is not one of success is
    asked for again by boto3, which knows what it means.

    Args:
        client: as :func:`job.storage.s3.client.make_client` returns it.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._addresses: dict[str, _Address] = {}
        self._asked = threading.local()
        client.meta.events.register("before-send.s3.GetObject", self._learn)

    def __call__(self, *, Bucket: str, Key: str, **conditions: str) -> Mapping[str, Any]:  # noqa: N803
        """Return what ``client.get_object`` would, as far as the job reads it.

        Args:
            Bucket: the bucket.
            Key: the object's key.
            conditions: ``Range`` and ``IfMatch``.
        """
        address = self._addresses.get(Bucket)
        if address is not None:
            headers = {_HEADERS[name]: value for name, value in conditions.items()}
            response = self._send(address, Key, headers)
            if response.status_code in _SUCCESS and "content-length" in response.headers:
                return _answer(response)
        self._asked.of = Bucket, Key
        found: Mapping[str, Any] = self._client.get_object(Bucket=Bucket, Key=Key, **conditions)
        return found

    def _learn(self, request: Any, **_: Any) -> None:
        """Keep where a request of boto3's own goes and how it is signed."""
        bucket, key = getattr(self._asked, "of", ("", ""))
        ending = f"/{_quoted(key)}"
        region = _REGION.search(str(request.headers.get("Authorization", "")))
        if bucket and region and request.url.endswith(ending):
            url = request.url.removesuffix(ending)
            self._addresses[bucket] = _Address(url, region[1])

    def _send(self, address: _Address, key: str, headers: Mapping[str, str]) -> Any:
        from botocore.awsrequest import AWSRequest

        request = AWSRequest("GET", f"{address.url}/{_quoted(key)}", headers)
        # The signer has the credentials of the moment: those of a role are renewed now and then.
        signer = self._client._request_signer
        signer.get_auth_instance("s3", address.region, "s3v4").add_auth(request)
        return self._client._endpoint.http_session.send(request.prepare())


def _quoted(key: str) -> str:
    """Return a key as botocore writes it in a URL."""
    return quote(key, safe="/~")


def _answer(response: Any) -> Mapping[str, Any]:
    """Return a successful answer as boto3 would."""
    headers = response.headers
    metadata = {
        name[len(_METADATA) :].lower(): value
        for name, value in headers.items()
        if name.lower().startswith(_METADATA)
    }
    return {
        "ContentLength": int(headers["content-length"]),
        "ContentRange": headers.get("content-range", ""),
        "ETag": headers.get("etag", ""),
        "Metadata": metadata,
        "Body": io.BytesIO(response.content),
    }
