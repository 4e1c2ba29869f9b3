"""Invented bank language: what customers write about, in four manners, and the signs in memos of transactions."""

from __future__ import annotations

from grammar import table

FORMAL, PLAIN, CHAT, BUSINESS = range(4)

_INTENTS = {
    "lost_card": """
        I wish to report the loss of my card | I have lost my card | lost my card pls help | a company card has gone missing
        my card has been stolen | somebody stole my card | card got nicked | an employee's card was stolen
        kindly block my card at once | please block the card | freeze my card now | block the card of our driver
        my purse was mislaid with the card inside | my purse is gone, card and all | wallet gone | bag with the firm's cards was left on a train
        a replacement card has not arrived | the new card has still not come | where is my new card | replacement cards have not reached the office
    """,
    "declined_payment": """
        my payment was refused at the till | the shop refused my card | card declined again | the terminal refused our card
        a purchase was not authorised | my purchase did not go through | it wont let me pay | supplier says the card payment bounced
        the contactless function fails | tapping the card does not work | tap not working | contactless fails at the pump
        an online order was rejected | my online order was turned down | checkout says no | the booking site rejects the card
        the cash machine returned no money | the cash machine gave me nothing | atm gave nothing | the cash machine kept our takings card
    """,
    "failed_transfer": """
        a transfer has not been credited | my transfer has not arrived | money not there yet | wages were sent but not received
        the standing order was not executed | the standing order did not go out | rent didnt go out | the payment run stopped halfway
        I entered an incorrect account number | I sent money to the wrong account | sent it to the wrong person | we paid the wrong supplier
        the remittance abroad is outstanding | the money sent abroad is missing | cash sent overseas is stuck | foreign remittance is stuck
        kindly recall a transfer | please cancel a transfer | can u stop a transfer | recall the batch of this morning
    """,
    "account_access": """
        I am unable to sign in | I cannot log in | cant log in | our bookkeeper cannot log in
        my password is not recognised | the app does not take my password | password wont work | the admin password is refused
        the security code was not received | the code by text never came | no code came | the token shows no code
        my access has been suspended | my account is locked | locked out lol | user locked after three tries
        the application closes unexpectedly | the app keeps closing | app keeps crashing | the portal times out
    """,
    "fees": """
        kindly explain the account charges | why was I charged a fee | whats this fee | explain the service charge
        the overdraft interest appears excessive | overdraft interest seems too high | overdraft cost me loads | interest on the credit line rose
        a foreign exchange fee was applied | I paid a fee abroad | fee on holiday money | currency margin seems off
        I request a refund of the charge | can the fee be refunded | give me the fee back | credit the terminal fee back to us
        the monthly price of the account | what does the account cost a month | is the account free | price list for card terminals
    """,
    "loan": """
        I wish to apply for a loan | I would like a loan | need a loan | we need working capital
        the mortgage terms | a question on my mortgage | mortgage thing | finance for a new warehouse
        an early repayment of the loan | can I repay the loan early | pay loan off early | settle the lease early
        an increase of my credit limit | a higher limit please | up my limit | raise the limit of the credit line
        the instalment date | I want to move the instalment date | can i pay instalment later | defer one instalment
    """,
    "personal_details": """
        my postal address has changed | I have moved house | moved flat | the registered office moved
        I wish to amend my surname | my name changed after the wedding | new surname | the company was renamed
        a new telephone number | I have a new phone number | got a new number | new contact for accounts
        the electronic mail address is outdated | my email is an old one | wrong email on file | invoices go to an old email
        the addition of a joint holder | add my wife to the account | add my gf to acct | add a signatory
    """,
    "disputed_charge": """
        I do not recognise a transaction | there is a payment I did not make | what is this payment, not me | an entry is unknown to us
        a merchant charged me twice | the shop took the money twice | charged twice!! | supplier debited the invoice twice
        a subscription was cancelled but still charged | they still charge a cancelled subscription | gym still taking money | a cancelled licence is still debited
        goods were never delivered | I paid and nothing was delivered | paid, got nothing | goods paid by card never arrived
        suspected fraud on the account | I think it is fraud | got scammed | a false invoice was paid
    """,
}

INTENTS: dict[str, list[tuple[str, ...]]] = {intent: table(text) for intent, text in _INTENTS.items()}

SMALL_TALK = (
    "I have been with you for years", "thanks in advance", "please hurry", "I called last week", "not urgent",
    "no one answered the phone", "hope you are well", "third time I write", "my branch is closed", "cheers",
    "I am travelling", "call me after five", "the chat ended", "sorry for the bother", "as agreed on the phone",
)  # fmt: skip

MEMO_SIGNS: dict[str, tuple[str, ...]] = {
    "legitimate": (
        "pos chip pin", "grocery", "rent standing order", "salary", "fuel station", "contactless transit", "home branch",
        "known payee", "usual device", "daytime",
    ),
    "card_testing": (
        "cnp 0.99", "cnp 1.00", "five tries one minute", "donation site", "digital goods", "cvv mismatch", "new merchant",
        "bot agent", "many cards one ip", "declined then approved",
    ),
    "account_takeover": (
        "password reset", "new device", "sim changed", "email changed before", "night login", "foreign ip",
        "limit raised", "balance emptied", "one time code shared", "remote tool open",
    ),
    "money_mule": (
        "in and out same hour", "many small credits", "student account", "crypto exchange", "cash out atm", "new payee",
        "round sums", "opened last month", "no salary", "forwarded abroad",
    ),
    "invoice_fraud": (
        "supplier iban changed", "urgent ceo request", "invoice resent", "domain one letter off", "first payment to iban",
        "amount as last invoice", "end of month", "approver on leave", "second invoice same number", "call back skipped",
    ),
}  # fmt: skip
