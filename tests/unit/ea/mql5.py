"""What the EA uses of MQL5, by MetaQuotes' reference: functions with their least and most arguments, and constants.

MetaEditor was never at hand: this list was made from the documentation, and a compiler may know better.
"""

from typing import Final


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Print, Alert and Comment take up to 64.
_MANY: Final = 64

BUILT_INS: Final[dict[str, tuple[int, int]]] = {
    "AccountInfoInteger": (1, 1),
    "AccountInfoString": (1, 1),
    "Alert": (1, _MANY),
    "ArrayCopy": (2, 5),
    "ArrayResize": (2, 3),
    "ArraySize": (1, 1),
    "CharArrayToString": (1, 4),
    "Comment": (1, _MANY),
    "CopyRates": (5, 5),
    "CopyTicks": (2, 5),
    "CopyTicksRange": (2, 5),
    "CryptEncode": (4, 4),
    "DoubleToString": (1, 2),
    "EventKillTimer": (0, 0),
    "EventSetMillisecondTimer": (1, 1),
    "FileClose": (1, 1),
    "FileDelete": (1, 2),
    "FileFindClose": (1, 1),
    "FileFindFirst": (2, 3),
    "FileFindNext": (2, 2),
    "FileFlush": (1, 1),
    "FileIsExist": (1, 2),
    "FileOpen": (2, 4),
    "FileReadArray": (2, 4),
    "FileReadInteger": (1, 2),
    "FileReadLong": (1, 1),
    "FileSeek": (3, 3),
    "FileSize": (1, 1),
    "FileTell": (1, 1),
    "FileWriteArray": (2, 4),
    "FileWriteInteger": (2, 3),
    "FileWriteLong": (2, 2),
    "GetLastError": (0, 0),
    "GetTickCount64": (0, 0),
    "IntegerToString": (1, 3),
    "IsStopped": (0, 0),
    "MQLInfoInteger": (1, 1),
    "MathAbs": (1, 1),
    "MathIsValidNumber": (1, 1),
    "MathMax": (2, 2),
    "MathMin": (2, 2),
    "MathRand": (0, 0),
    "MathRound": (1, 1),
    "MathSrand": (1, 1),
    "Print": (1, _MANY),
    "ResetLastError": (0, 0),
    "SeriesInfoInteger": (3, 4),
    "Sleep": (1, 1),
    "StringFind": (2, 3),
    "StringFormat": (1, _MANY),
    "StringGetCharacter": (2, 2),
    "StringLen": (1, 1),
    "StringReplace": (3, 3),
    "StringSplit": (3, 3),
    "StringSubstr": (2, 3),
    "StringToCharArray": (2, 5),
    "StringToDouble": (1, 1),
    "StringToInteger": (1, 1),
    "StringToLower": (1, 1),
    "StringTrimLeft": (1, 1),
    "StringTrimRight": (1, 1),
    "SymbolInfoDouble": (2, 3),
    "SymbolInfoInteger": (2, 3),
    "SymbolInfoSessionQuote": (5, 5),
    "SymbolName": (2, 2),
    "SymbolSelect": (2, 2),
    "SymbolsTotal": (1, 1),
    "TerminalInfoInteger": (1, 1),
    "TimeGMT": (0, 1),
    "TimeToString": (1, 2),
    "TimeToStruct": (2, 2),
    "TimeTradeServer": (0, 1),
    "WebRequest": (7, 9),
}

CONSTANTS: Final = _words(
    """
    ACCOUNT_LOGIN ACCOUNT_SERVER COPY_TICKS_ALL CP_UTF8 CRYPT_HASH_SHA256 ERR_HISTORY_NOT_FOUND ERR_HISTORY_TIMEOUT
    ERR_MARKET_NOT_SELECTED ERR_MARKET_UNKNOWN_SYMBOL FILE_BIN FILE_COMMON FILE_READ FILE_SHARE_READ
    FILE_SHARE_WRITE FILE_WRITE INIT_FAILED INIT_PARAMETERS_INCORRECT INIT_SUCCEEDED INT_VALUE INVALID_HANDLE
    MQL_TESTER PERIOD_M1 SEEK_SET SERIES_SYNCHRONIZED SYMBOL_CHART_MODE SYMBOL_CHART_MODE_LAST SYMBOL_CUSTOM
    SYMBOL_DIGITS SYMBOL_EXIST SYMBOL_EXPIRATION_TIME SYMBOL_POINT SYMBOL_TIME_MSC SYMBOL_VISIBLE TERMINAL_BUILD
    TERMINAL_CONNECTED WHOLE_ARRAY
    """
)

#: Node kinds of the C++ grammar that MQL5 has too, and means alike. Templates are dynamic arrays, see `translated`.
NODE_KINDS: Final = _words(
    """
    access_specifier argument_list array_declarator assignment_expression binary_expression break_statement
    call_expression case_statement cast_expression char_literal character class_specifier comment compound_statement
    condition_clause conditional_expression continue_statement declaration do_statement else_clause enum_specifier
    enumerator enumerator_list escape_sequence expression_statement false field_declaration field_declaration_list
    field_expression field_identifier field_initializer field_initializer_list for_statement function_declarator
    function_definition identifier if_statement init_declarator initializer_list number_literal
    parameter_declaration parameter_list parenthesized_expression preproc_arg preproc_def preproc_ifdef
    preproc_include primitive_type reference_declarator return_statement sized_type_specifier
    storage_class_specifier string_content string_literal struct_specifier subscript_argument_list
    subscript_expression switch_statement template_argument_list template_type translation_unit true type_descriptor
    type_identifier type_qualifier unary_expression union_specifier update_expression while_statement
    """
)

TYPES: Final = frozenset({"bool", "char", "int", "long", "double", "void"})

#: Parameters by reference of the functions above, from 0.
REFERENCES: Final[dict[str, tuple[int, ...]]] = {
    "ArrayCopy": (0, 1),
    "ArrayResize": (0,),
    "ArraySize": (0,),
    "CharArrayToString": (0,),
    "CopyRates": (4,),
    "CopyTicks": (1,),
    "CopyTicksRange": (1,),
    "CryptEncode": (1, 2, 3),
    "FileFindFirst": (1,),
    "FileFindNext": (1,),
    "FileReadArray": (1,),
    "FileWriteArray": (1,),
    "StringReplace": (0,),
    "StringSplit": (2,),
    "StringToCharArray": (1,),
    "StringToLower": (0,),
    "StringTrimLeft": (0,),
    "StringTrimRight": (0,),
    "SymbolInfoSessionQuote": (3, 4),
    "TimeToStruct": (1,),
    "WebRequest": (4, 5, 6),
}

#: What waits for the terminal, the broker, a server or the disk.
SLOW: Final = _words(
    """
    CopyRates CopyTicks CopyTicksRange FileDelete FileFindNext FileOpen FileReadArray FileWriteArray SymbolInfoDouble
    SymbolInfoInteger SymbolInfoSessionQuote SymbolName SymbolSelect WebRequest
    """
)

STRUCTURES: Final = frozenset({"MqlTick", "MqlRates", "MqlDateTime"})

NUMBERS: Final = _words("bool char uchar short ushort int uint long ulong double float datetime color")

#: Words of the language that C++ leaves to programs (MQL5: "Reserved Words").
RESERVED: Final = _words("color complex delete export group input matrix sinput vector")

#: MQL5: "Identifiers".
LONGEST_NAME: Final = 63

#: The events that the programs handle, as the terminal calls them.
HANDLERS: Final = {
    "OnInit": "int OnInit()",
    "OnDeinit": "void OnDeinit(const int reason)",
    "OnTimer": "void OnTimer()",
    "OnStart": "void OnStart()",
}
