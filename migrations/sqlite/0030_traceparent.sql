-- Names the span of the request that asked for the custom CSR (W3C Trace Context), if traces were recorded: the span of its job links to it.
ALTER TABLE custom_csrs ADD COLUMN traceparent TEXT;
ALTER TABLE hidden_custom_csrs ADD COLUMN traceparent TEXT;
