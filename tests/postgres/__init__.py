"""
A PostgreSQL of the tests' own, or the one that VEO_ASYNC_TEST_DATABASE names.
"""
