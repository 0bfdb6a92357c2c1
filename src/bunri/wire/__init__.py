"""Runs in: every process; pure. The protocol without any I/O: contracts, frames, tables of objects."""

from bunri.wire.contract import Contract, Kind, Limits, MethodContract, check_annotated, contract_of, here_only

__all__ = ["Contract", "Kind", "Limits", "MethodContract", "check_annotated", "contract_of", "here_only"]
