"""Surveys in, batches out: readers, conversion, shards, order, augmentation."""
