"""Boards behind a TVM RPC tracker."""
