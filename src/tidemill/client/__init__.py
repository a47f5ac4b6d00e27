"""The typed Python client of the JSON API."""

from tidemill.client.client import Client
from tidemill.client.packages import UploadProgress

__all__ = ["Client", "UploadProgress"]
