"""A typed answer: the server is held to the schema, the answer is checked, and `parsed` is a Person."""

from pydantic import BaseModel, Field

from portico import Client


class Company(BaseModel):
    name: str = Field(description="Company name")
    country: str = Field(description="Country where company is headquartered")
    description: str = Field(description="Brief description of the company")


class Person(BaseModel):
    name: str = Field(description="The person's full name")
    profession: str = Field(description="Their primary occupation")
    description: str = Field(description="A brief biography")
    companies: list[Company] = Field(default=[], description="Companies they've worked for")


with Client() as client:
    person = client.generate("Tell me about Albert Einstein", output=Person, temperature=0).parsed
print(f"{person.name}, {person.profession}: {person.description}")
for company in person.companies:
    print(f"  {company.name} ({company.country}): {company.description}")
