"""The soak: a whole system at half of its capacity for hours, with faults at random moments, watched for what grows.

    python -m tests.crash.soak --minutes 125 --seed 7 --out FILE      (make soak)

One Redis with an append-only file; a group of supervised workers and an async worker that are killed (*battered*), and
the same again that are not (*sheltered*), so that there are processes that live for the whole run; two producers; a
proxy between all of them and the server. A run leaves a folder of plain files, which `report.py` evaluates at any time.

    journal.py   facts, one line each          proxy.py     the proxy, a process
    app.py       the jobs                      producer.py  the producers, processes
    fleet.py     starts and finds processes    faults.py    what goes wrong, and when
    samples.py   a look at everything          run.py       drives it all
    slopes.py    least squares                 account.py   lost and repeated jobs
    report.py    verdicts, JSON and Markdown
"""
