// Which symbols are collected.

#ifndef TICKPIPE_SYMBOL_CHOICE_MQH
#define TICKPIPE_SYMBOL_CHOICE_MQH

class SymbolChoice {
private:
    // By comma; empty is the Market Watch.
    string m_named;
    // Names that the broker does not know, each said once.
    string m_unknown;

    void Watched(string &names[]) const {
        int count = 0;
        for(int i = 0; i < SymbolsTotal(true) && !IsStopped(); i++) {
            string name = SymbolName(i, true);
            // The terminal also selects what it needs to compute margins, and shows it nowhere. A custom symbol is made on
            // this PC.
            if(SymbolInfoInteger(name, SYMBOL_VISIBLE) == 0 || SymbolInfoInteger(name, SYMBOL_CUSTOM) != 0)
                continue;
            ArrayResize(names, count + 1, 64);
            names[count] = name;
            count++;
        }
    }

public:
    SymbolChoice() { Begin(""); }

    void Begin(const string named) {
        m_named = named;
        m_unknown = "";
    }

    // The names of those that the broker has now.
    void Find(string &names[]) {
        ArrayResize(names, 0);
        if(m_named == "") {
            Watched(names);
            return;
        }
        string wanted[];
        int given = StringSplit(m_named, ',', wanted);
        int count = 0;
        for(int i = 0; i < given && !IsStopped(); i++) {
            StringTrimLeft(wanted[i]);
            StringTrimRight(wanted[i]);
            if(wanted[i] == "")
                continue;
            if(SymbolSelect(wanted[i], true)) {
                ArrayResize(names, count + 1, 64);
                names[count] = wanted[i];
                count++;
            } else if(StringFind(m_unknown, "," + wanted[i] + ",") < 0) {
                m_unknown += "," + wanted[i] + ",";
                Print("The broker has no symbol ", wanted[i], " (Symbols).");
            }
        }
    }
};

#endif
