"""What people say: label events, the formats they come in, agreement, aggregation, merging with AI votes, routing.

| module | what |
|---|---|
| `events`, `items` | the log of `HumanLabel` events; what people are shown |
| `formats/`, `exchange` | one file a format; import with a report of every trap met, export |
| `table`, `aggregate`, `agreement` | votes as plain columns; consensus and reliability; how far people agree |
| `policy`, `policies/`, `merge` | rules, as files, by which events and AI preferences become one preference |
| `route`, `certify`, `alttest`, `ppi` | whom to ask next; what may be left to the judge |
| `page/` | the labelling page |
"""
