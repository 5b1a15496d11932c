"""What the conformance suite stands on: bundles, the runtime under test, the probe in the container, the table of results."""
